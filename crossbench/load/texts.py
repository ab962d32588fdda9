"""Reader for queries and collection files: lines of `id<TAB>text`, or BEIR's JSON lines.

A file may contain millions of texts of which few are requested. Only those are kept, and only a
requested row that is unusable is an error; other unusable rows are counted.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crossbench.errors import DatasetError
from crossbench.load.text_lines import COMPRESSED, raw_lines, utf8_error_message
from crossbench.system.json_text import parse_json
from crossbench.wording import counted

# Column names in the first row of a file, such as `pid<TAB>passage`
_HEADER = re.compile(
    r"_?id|[qpd]id|docno|(query|topic|passage|pass|doc|document|corpus)[_-]?id|query|topic", re.I
)


@dataclass(frozen=True, slots=True)
class Row:
    """One row. `problem` says why its text is unusable, or is empty."""

    number: int
    identifier: str
    text: str
    problem: str = ""


@dataclass
class Texts:
    """The result of read_texts().

    `order` has the requested identifiers in the order of the file, `found` their texts, and
    `unusable` an error message for each one without a usable text. `others` counts valid rows that
    were not requested; `other` is the identifier of the first one.
    """

    path: Path
    order: dict[str, None] = field(default_factory=dict)
    found: dict[str, str] = field(default_factory=dict)
    unusable: dict[str, str] = field(default_factory=dict)
    others: int = 0
    other: str = ""
    skipped: int = 0
    first_skipped: str = ""
    repeated: int = 0

    def notes(self) -> list[str]:
        """Return a sentence for each kind of row that was skipped."""
        notes = []
        if self.skipped:
            rows = counted(self.skipped, "row")
            notes.append(
                f"{self.path.name}: skipped {rows} without a usable identifier or text. No run or "
                f"judgement refers to them. The first is {self.first_skipped}."
            )
        if self.repeated:
            notes.append(f"{self.path.name}: skipped {counted(self.repeated, 'repeated row')}.")
        return notes


def read_texts(path: Path, wanted: Container[str]) -> Texts:
    """Read the texts of the identifiers in `wanted`.

    Raises:
        DatasetError: the file is empty or unreadable, a line of a JSON file is invalid, or a
            requested identifier has two texts.
    """
    texts = Texts(path)
    lines: dict[str, int] = {}
    open_quote = ""  # identifier of the previous row, if a quoted text starts there without an end
    for row in _rows(path):
        if row.problem and open_quote:
            texts.found.pop(open_quote, None)
            texts.unusable[open_quote] = (
                f"{path}:{row.number - 1}: a quoted text continues on the next line: write each "
                "text on one line, without quotes around it"
            )
        opens = row.text.startswith('"') and row.text.count('"') % 2 == 1
        open_quote = row.identifier if opens and row.identifier in wanted else ""
        where = f"{path}:{row.number}"
        if row.identifier not in wanted:
            if row.problem:
                texts.skipped += 1
                texts.first_skipped = texts.first_skipped or f"line {row.number}, {row.problem}"
            elif row.number != 1 or not header_like(row.identifier):
                texts.others += 1
                texts.other = texts.other or row.identifier
            continue
        texts.order.setdefault(row.identifier)
        if row.problem:
            texts.unusable.setdefault(row.identifier, f"{where}: {row.problem}")
        elif texts.found.setdefault(row.identifier, row.text) != row.text:
            raise DatasetError(
                f"{where}: {row.identifier} has a different text in line {lines[row.identifier]}: "
                "keep one of them"
            )
        elif lines.setdefault(row.identifier, row.number) != row.number:
            texts.repeated += 1
    return texts


def header_like(identifier: str) -> bool:
    """Return whether the first field of a file is a column name."""
    return _HEADER.fullmatch(identifier) is not None


def _rows(path: Path) -> Iterator[Row]:
    name = path.name.lower()
    for ending in COMPRESSED:
        name = name.removesuffix(ending)
    parse = _json_row if name.endswith((".jsonl", ".json", ".ndjson")) else _tsv_row
    for number, raw in raw_lines(path):
        try:
            line, problem = raw.decode(), ""
        except UnicodeDecodeError as error:
            # Decode the rest anyway, since the identifier shows whether the row is requested
            line, problem = raw.decode(errors="replace"), utf8_error_message(error)
        yield parse(path, number, line, problem)


def _tsv_row(path: Path, number: int, line: str, problem: str) -> Row:
    """Parse `id<TAB>text`. Later tabs and quotes are part of the text, as in MS MARCO's files."""
    identifier, tab, text = line.partition("\t")
    identifier, text = identifier.strip(), text.strip()
    if not tab or not identifier or not text:
        problem = problem or f"expected 'id<TAB>text', found {line[:80]!r}"
        if not tab:
            identifier = line.split(maxsplit=1)[0]
    return Row(number, identifier, text, problem)


def _json_row(path: Path, number: int, line: str, problem: str) -> Row:
    """Parse BEIR's `{"_id": …, "title": …, "text": …}`. Join title and text by a space, as BEIR."""
    where = f"{path}:{number}"
    try:
        document: Any = parse_json(line, object_pairs_hook=_without_repeats)
    except ValueError as error:
        raise DatasetError(
            f"{where}: the line is not valid JSON ({error}), found {line[:80]!r}"
        ) from None
    if not isinstance(document, dict) or "_id" not in document:
        raise DatasetError(
            f'{where}: expected {{"_id": …, "text": …}} as in BEIR, found {line[:80]!r}'
        )
    identifier, title, text = document["_id"], document.get("title"), document.get("text")
    if isinstance(identifier, bool) or not isinstance(identifier, str | int):
        return Row(number, "", "", problem or f"_id is neither text nor an integer: {line[:80]!r}")
    for key, value in (("title", title), ("text", text)):
        if value is not None and not isinstance(value, str):
            problem = problem or f"{key} is not text: {line[:80]!r}"
            return Row(number, str(identifier).strip(), "", problem)
    joined = f"{title or ''} {text or ''}".strip()
    if not joined:
        problem = problem or f"the text is empty: {line[:80]!r}"
    elif not _encodable(joined):
        problem = problem or f"the text contains an unpaired surrogate: {line[:80]!r}"
    return Row(number, str(identifier).strip(), joined, problem)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build a dict and reject repeated keys, of which json.loads would silently use the last."""
    document = dict(pairs)
    if len(document) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(
            f"the key {next(key for key in keys if keys.count(key) > 1)!r} is repeated"
        )
    return document


def _encodable(text: str) -> bool:
    """Return whether the text can be encoded. JSON escapes may contain unpaired surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
