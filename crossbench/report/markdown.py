"""Join the sections of a Markdown report so that what people typed stays text.

Names, paths, labels and error messages may come from a stranger. None of them may become HTML, an
image or link to another place, or the start of a code block in the page that shows the report.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_FENCE = re.compile(r"```\w*")
# What reports link to themselves: plots and other reports in their folder
_OWN_TARGET = re.compile(r"\]\((?![\w./-]*(?:#[\w-]*)?\))")
_DEFINITION = re.compile(r"^([\s>*+-]*)\[(?=[^\]]*\]:)")
_CODE = re.compile(r"(?P<heading>#+ [^\n]*\n)?(?P<code>(?:\n| {4}[^\n]*(?:\n|\Z))+)")


@dataclass(frozen=True, slots=True)
class Folded:
    """A part of a report of which a page shows only the title until somebody opens it."""

    title: str
    body: str


Section = str | Folded


def markdown(sections: Iterable[Section]) -> str:
    """Return the text of a report; sections without text are left out."""
    return "\n\n".join(_safe(section) for section in sections if section) + "\n"


def one_line(text: str) -> str:
    """Return `text` on one line, so that it cannot begin a heading, a list or a table."""
    return " ".join(text.split())


def _safe(section: Section) -> str:
    if isinstance(section, Folded):
        title, body = _safe_line(section.title), _safe(section.body)
        return f"<details>\n<summary>{title}</summary>\n\n{body}\n\n</details>"
    if block := _CODE.fullmatch(section):  # an indented block of code, which needs no escapes
        return _safe_line(block["heading"] or "") + block["code"]
    lines, fenced = [], False
    for line in section.split("\n"):
        is_fence = _FENCE.fullmatch(line) is not None
        lines.append(line if fenced or is_fence else _safe_line(line))
        fenced ^= is_fence
    return "\n".join(lines)


def _safe_line(line: str) -> str:
    line = _OWN_TARGET.sub(r"]\\(", line.replace("<", "&lt;"))
    line = _DEFINITION.sub(r"\1\\[", line)
    if line.count("`") % 2 or "```" in line:  # would turn the text after it into code
        line = line.replace("`", "\\`")
    return line
