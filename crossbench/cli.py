"""The console script: `crossbench` runs `python -m crossbench`, `crossbench serve` runs
`python -m crossbench.serve`, and so on for every command. It answers the shell's completion too."""

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
    if {"-sc", "--shell-completion"} & set(sys.argv):
        from crossbench.settings.completion import answer_shell

        sys.argv[0] = "crossbench"  # Hydra names the script for the shell after it
        answer_shell(COMMANDS, lambda: runpy.run_module("crossbench", run_name="__main__"))
        return
    module = "crossbench"
    if len(sys.argv) > 1 and sys.argv[1] in COMMANDS:
        module += f".{sys.argv.pop(1)}"
    runpy.run_module(module, run_name="__main__", alter_sys=True)
