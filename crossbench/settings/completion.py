"""Completion of `crossbench ...` in a shell: `eval "$(crossbench -sc install=bash)"`.

Hydra completes keys and choices. This module adds the commands (`crossbench serve`), the later of
several choices (`backend=pytorch,onnx`), and options.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Sequence

from crossbench.settings.choices import study_names

_LINE = "COMP_LINE"  # what the shell has: the whole line up to the cursor
_OF_FOLDERS = ("compare", "report", "trace")
_OPTIONS = ("--cfg", "--config-dir", "--help", "--multirun", "--quiet", "--version")


def answer_shell(commands: Sequence[str], run: Callable[[], object]) -> None:
    """Print the script that a shell installs, or the words that fit the line being typed.

    `run` runs `python -m crossbench` with the arguments of this process.
    """
    if not any(argument.startswith("query=") for argument in sys.argv):
        run()
        return

    def ask_hydra(line: str) -> list[str]:
        os.environ[_LINE] = line
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            run()
        return printed.getvalue().split()

    print("\n".join(suggestions(os.environ.get(_LINE, ""), commands, ask_hydra)))


def suggestions(
    line: str, commands: Sequence[str], ask_hydra: Callable[[str], list[str]]
) -> list[str]:
    """Return the words that may stand in place of the last one of `line`.

    Where a folder is expected, the list is empty: the shell then completes file names.
    """
    program, *words = line.split(" ")
    *before, typed = [*(word for word in words[:-1] if word), *words[-1:]] or [""]
    if typed.startswith("-"):
        return [option for option in _OPTIONS if option.startswith(typed)]
    names = [] if before else [name for name in commands if name.startswith(typed)]
    command = before.pop(0) if before and before[0] in commands else ""
    if command in _OF_FOLDERS:
        return []
    key, equals, values = typed.partition("=")
    earlier, comma, last = values.rpartition(",")
    if key == "studies":
        start = f"{key}={earlier}," if comma else f"{key}=["
        return [start + name for name in study_names() if name.startswith(last.lstrip("["))]
    found = ask_hydra(" ".join([program, *before, f"{key}{equals}{last}"]))
    if comma:  # Hydra knows choices one by one
        found = [f"{key}={earlier},{word.partition('=')[2]}" for word in found]
    return names + [word for word in found if word.startswith(typed) and "._" not in word]
