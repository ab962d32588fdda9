"""Numbers and tables as text, for Markdown and for the terminal."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence

from crossbench.measure.statistics import percentile_supported
from crossbench.wording import number

Row = Sequence[str]


def percentile_text(value: float | None, q: float, n: int, unit: str = "") -> str:
    """A percentile as text, marked with the number of requests `n` if these are too few."""
    text = f"{number(value)} {unit}".rstrip()
    return text if value is None or percentile_supported(q, n) else f"~{text} (n={n})"


def interval_text(low: float, high: float) -> str:
    """`low … high` with as many decimals as their distance needs."""
    size = math.floor(math.log10(high - low)) if high > low else 0
    digits = max(0, 1 - size)
    return f"{low:,.{digits}f} … {high:,.{digits}f}"


def plus_minus(value: float, half: float) -> str:
    """`value ± half`: the half-width to two digits, the value to the same decimal place."""
    if half <= 0:
        return number(value)
    places = max(0, 1 - math.floor(math.log10(half)))
    # No more digits than number() gives, even if the half-width is tiny.
    places = min(places, max(0, 4 - math.floor(math.log10(abs(value) or 1.0))))
    return f"{value:,.{places}f} ± {half:,.{places}f}"


def shorten(text: str, width: int) -> str:
    """A name on one line of at most `width` characters, cut in the middle, as both ends matter."""
    line = " ".join(text.split())
    if len(line) <= width:
        return line
    head = (width - 1) * 2 // 3
    return f"{line[:head].rstrip()}…{line[len(line) - (width - 1 - head) :].lstrip()}"


def markdown_table(headers: Row, rows: Sequence[Row], align: str = "") -> str:
    """A Markdown table, also aligned as plain text; `align` has an l or r per column."""
    cells = [[_escape(cell) for cell in row] for row in (headers, *rows)]
    align = align.ljust(len(headers), "l")
    widths = [max(3, *(text_width(row[column]) for row in cells)) for column in range(len(headers))]
    lines = ["| " + " | ".join(_pad(*cell) for cell in zip(row, widths, align, strict=True)) + " |"
             for row in cells]  # fmt: skip
    rules = ["-" * (width - 1) + (":" if side == "r" else "-")
             for width, side in zip(widths, align, strict=True)]  # fmt: skip
    return "\n".join([lines[0], "| " + " | ".join(rules) + " |", *lines[1:]])


def plain_table(headers: Row, rows: Sequence[Row], align: str = "") -> str:
    """A table for the terminal: two spaces between columns and a rule below the headers."""
    align = align.ljust(len(headers), "l")
    widths = [
        max(text_width(row[column]) for row in (headers, *rows)) for column in range(len(headers))
    ]
    lines = ["  ".join(_pad(*cell) for cell in zip(row, widths, align, strict=True)).rstrip()
             for row in (headers, ["─" * width for width in widths], *rows)]  # fmt: skip
    return "\n".join(lines)


def _escape(cell: str) -> str:
    return " ".join(cell.split()).replace("|", "\\|")


def _pad(cell: str, width: int, side: str) -> str:
    space = " " * (width - text_width(cell))
    return space + cell if side == "r" else cell + space


def text_width(text: str) -> int:
    """Width on a terminal: East Asian wide characters take two columns, combining ones none."""
    return sum(
        0 if unicodedata.combining(char) else 1 + (unicodedata.east_asian_width(char) in "WF")
        for char in text
    )
