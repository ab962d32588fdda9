"""Formatting of numbers and counts for reports, plots, the dashboard and the terminal."""

from __future__ import annotations

import math
import re
import signal
from collections.abc import Sequence

ABSENT = "–"
# All but tab and the ends of lines, and those that change the direction of writing
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_MARKDOWN = re.compile(r"[\\`*_\[\]{}|~#!]")


def number(value: float | None, digits: int = 3) -> str:
    """Format `value` with `digits` significant digits, integers in full, and a dash for None."""
    if value is None or not math.isfinite(value):
        return ABSENT
    if value == 0:
        return "0"
    if isinstance(value, int):
        return f"{value:,}"
    size = math.floor(math.log10(abs(value)))
    if size < -3:
        return f"{value:.1e}"
    return f"{value:,.{max(0, digits - 1 - size)}f}"


def markdown_text(text: str) -> str:
    """Return a text of unknown origin as one line of Markdown that shows it as it is."""
    line = " ".join(text.split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKDOWN.sub(r"\\\g<0>", line)


def printable(text: str) -> str:
    """Return a text with its control characters as escapes, such as `\\x1b`.

    A terminal obeys them: they may hide or move other text, or set the title or the clipboard.
    """
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def error_text(error: BaseException) -> str:
    """Return an error of any kind with its type, on one line: `ValueError: no such thing`."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def percent(share: float, digits: int = 0, *, signed: bool = False) -> str:
    """Format a share of 1 as a percentage: `12 %`, or `+12 %` if `signed`."""
    return f"{100 * share:{'+' if signed else ''}.{digits}f} %"


def counted(count: int, noun: str) -> str:
    """Return the count with its noun: `1 cell`, `2 cells`, `1,200 queries`."""
    if count == 1:
        return f"1 {noun}"
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{count:,} {plural}"


def join_first(texts: Sequence[str], most: int = 5, separator: str = "; ") -> str:
    """Join the first texts and count the rest: `a; b; and 3 more`."""
    rest = len(texts) - most
    return separator.join([*texts[:most], *([f"and {rest} more"] if rest > 0 else [])])


def join_words(texts: Sequence[str]) -> str:
    """Join texts as in a sentence: `a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(texts[:-1]), *texts[-1:]]))


def duration(seconds: float) -> str:
    """Format a duration: `45 s`, `12 min`, `3 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def exit_description(status: int) -> str:
    """Describe how a process ended: `ended with status 1`, `was ended by SIGKILL (…)`."""
    if status >= 0:
        return f"ended with status {status}"
    name = signal.Signals(-status).name
    hint = " (out of memory, or killed by hand)" if status == -signal.SIGKILL else ""
    return f"was ended by {name}{hint}"
