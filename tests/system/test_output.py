"""What is printed has no control characters but our own: a terminal would obey a stranger's."""

from __future__ import annotations

import re
import subprocess
import sys

from crossbench.wording import printable
from tests.helpers.places import REPO

# Sets the title, writes the clipboard, clears the screen, hides, deletes, turns the writing around
HOSTILE = "a\x1b]0;title\x07b\x1b]52;c;aGk=\x1b\\c\x1b[2J\x9b8md\x08\x7fe\u202ef"
AS_TEXT = r"a\x1b]0;title\x07b\x1b]52;c;aGk=\x1b\c\x1b[2J\x9b8md\x08\x7fe\u202ef"

PRINTS = """
import sys
from crossbench.errors import ConfigError
from crossbench.sweeps.progress import SteadyConsole
from crossbench.system.command import run_command
from rich.progress import Progress
from rich.text import Text

HOSTILE = {hostile!r}

def main(arguments):
    print(HOSTILE)
    console = SteadyConsole(stderr=True, force_terminal=True, width=200, color_system="standard")
    console.print("[yellow]drawn[/]")
    console.print(HOSTILE, markup=False, soft_wrap=True)
    console.print(Text(HOSTILE))
    with Progress("{{task.description}}", console=console, auto_refresh=False) as bar:
        bar.add_task(HOSTILE)
        bar.refresh()
    raise ConfigError(HOSTILE)

run_command(main)
"""


def test_texts_cannot_control_the_terminal() -> None:
    code = PRINTS.format(hostile=HOSTILE)
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=REPO, capture_output=True, encoding="utf-8", check=False
    )
    assert ended.returncode == 1
    assert ended.stdout == AS_TEXT + "\n"
    assert "\x1b[33mdrawn\x1b[0m" in ended.stderr
    drawn = re.compile(r"\x1b\[(\?25[lh]|[0-9;]*[mAK]|2K)")  # colours, cursor, the bar's own line
    shown = drawn.sub("", ended.stderr)
    assert printable(shown.replace("\r", "")) == shown.replace("\r", "")
    by_rich = AS_TEXT.replace(r"\x07", "").replace(r"\x08", "")  # it leaves these out itself
    assert shown.count(by_rich) >= 2
    assert shown.endswith(f"crossbench: {AS_TEXT}\n")


def test_other_text_stays_as_it_is() -> None:
    text = "tab\tand\nlines\r\n é 水 😀 שלום \u200f – \u00a0"
    assert printable(text) == text
