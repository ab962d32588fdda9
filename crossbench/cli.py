"""The console script: `crossbench` runs `python -m crossbench`, `crossbench serve` runs
`python -m crossbench.serve`, and so on for every command."""

from __future__ import annotations

import runpy
import sys

from crossbench.system.stop_signals import end_at_once_until_handled

COMMANDS = (
    "client", "compare", "dashboard", "doctor", "report", "selfcheck", "serve", "suite", "sync",
    "trace", "tracking",
)  # fmt: skip


def main() -> None:
    """Run the command that the first argument names, or `python -m crossbench` if it names none."""
    end_at_once_until_handled()
    module = "crossbench"
    if len(sys.argv) > 1 and sys.argv[1] in COMMANDS:
        module += f".{sys.argv.pop(1)}"
    runpy.run_module(module, run_name="__main__", alter_sys=True)
