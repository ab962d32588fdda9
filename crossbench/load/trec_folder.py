"""Finds the queries, collection, run and qrels in a folder of MS MARCO, TREC or BEIR."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from crossbench.errors import DatasetError
from crossbench.load.text_lines import COMPRESSED, first_line_matches

NONE = "none"  # dataset.run=none: use no run, even if the folder contains one
_NUMBER = r"[+-]?[\d.]+(?:e[+-]?\d+)?"
_TEXT_ROW = re.compile(r"[^\t]+\t.|\{", re.DOTALL)
_RUN_ROW = re.compile(rf"(?:\S+\s+\S+\s+\S+\s+\S+\s+{_NUMBER}\s+\S+|\S+\s+\S+\s+\d+)$", re.I)
_QRELS_ROW = re.compile(rf"(?:\S+\s+\S+\s+\S+\s+{_NUMBER}|\S+\t\S+\t(?:{_NUMBER}|score))$", re.I)
# Six columns, or MS MARCO's four (query, passage and their texts): only runs look like this
_RUN_START = re.compile(rf"\S+\s+Q0\s+\S+\s+\S+\s+{_NUMBER}\s+\S+$|\d+\t\d+\t[^\t]+\t.", re.I)
_TEXTS = (".tsv", ".jsonl")
_TABLES = (".txt", ".tsv")
_RUNS = (".trec", ".run", ".res")
# BEIR stores judgements in this folder, with one file per split
_QRELS_FOLDER, _SPLITS = "qrels", ("test", "dev", "train")

# run.bm25.txt, runs_1.tsv, but neither runtime.txt nor running.txt
_RUN_NAME = re.compile(r"runs?(?![a-z])")

# Takes a file's name, in lower case and without a compression suffix, and its suffix
NameTest = Callable[[str, str], bool]


def _is_run(name: str) -> bool:
    return _RUN_NAME.match(name) is not None


@dataclass(frozen=True)
class Kind:
    """One kind of file: its option, the pattern of its first line, and tests for its name.

    `by_name` is in order of preference: the first test that a file passes selects it. The names
    in `by_content` have other suffixes, so the first line must match as well.
    """

    option: str
    row: re.Pattern[str]
    examples: str
    by_name: tuple[NameTest, ...]
    by_content: tuple[NameTest, ...] = ()

    @property
    def noun(self) -> str:
        return self.option.removesuffix("_file")


QUERIES = Kind(
    "queries_file",
    _TEXT_ROW,
    "queries*.tsv or queries*.jsonl",
    (
        lambda name, ending: name.startswith("queries") and ending in _TEXTS,
        lambda name, ending: "queries" in name and ending in _TEXTS,
    ),
)
COLLECTION = Kind(
    "collection_file",
    _TEXT_ROW,
    "collection*.tsv or corpus*.jsonl",
    (
        lambda name, ending: name.startswith(("collection", "corpus")) and ending in _TEXTS,
        lambda name, ending: ("collection" in name or "corpus" in name) and ending in _TEXTS,
    ),
)
RUN = Kind(
    "run",
    _RUN_ROW,
    "run*.txt, run*.tsv, *.run, *.trec or *.res",
    (
        lambda name, ending: _is_run(name) and ending in (*_TABLES, *_RUNS),
        lambda name, ending: ending in _RUNS and "qrels" not in name,
    ),
    (lambda name, ending: _is_run(name),),
)
QRELS = Kind(
    "qrels",
    _QRELS_ROW,
    "qrels*.txt, qrels*.tsv or qrels/test.tsv",
    (
        lambda name, ending: name.startswith("qrels") and ending in (*_TABLES, ".trec", ".qrels"),
        lambda name, ending: "qrels" in name and ending in (*_TABLES, ".trec", ".qrels"),
    ),
    (lambda name, ending: name.startswith("qrels"),),
)


@dataclass
class Folder:
    """A data set's folder. `notes` receives a sentence for each file that was ignored."""

    path: Path
    notes: list[str] = field(default_factory=list)

    def required(self, kind: Kind, name: str | None) -> Path:
        """Return the file `name`, or find the only file of that kind.

        Raises:
            DatasetError: there is no such file, or more than one.
        """
        path = self.find(kind, name)
        if path is None:
            raise DatasetError(
                f"{self.path} contains no {kind.noun} file ({kind.examples}, "
                f"also compressed: {', '.join(COMPRESSED)}): add one, or give its name with "
                f"dataset.{kind.option}=FILE; {self._contents()}"
            )
        return path

    def find(self, kind: Kind, name: str | None) -> Path | None:
        """Return the file as required() does, or None if there is none or `name` is `none`.

        Raises:
            DatasetError: there is no file of that name, or more than one of that kind.
        """
        if name is not None and name != NONE:
            path = self.path / name
            if not path.is_file():
                raise DatasetError(
                    f"dataset.{kind.option}={name}: there is no such file in {self.path}; "
                    f"{self._contents()}"
                )
            return path
        if name == NONE:
            return None
        matching = self._matching(kind)
        if kind is QRELS:
            matching += self._beir_qrels()
        if len(matching) > 1:
            names = ", ".join(str(path.relative_to(self.path)) for path in matching)
            raise DatasetError(
                f"{self.path} contains several {kind.noun} files ({names}): choose one with "
                f"dataset.{kind.option}=FILE"
            )
        return matching[0] if matching else None

    def possible_runs(self, known: Iterable[Path | None]) -> list[str]:
        """Return the names of files that look like a run and are not in `known`.

        Also searches the direct subfolders.
        """
        inner = [
            path
            for path in sorted(self.path.iterdir())
            if path.is_dir() and not path.name.startswith(".") and os.access(path, os.R_OK)
        ]
        files = [path for folder in (self.path, *inner) for path in _visible(folder)]
        return [
            str(path.relative_to(self.path))
            for path in files
            if path not in known and first_line_matches(path, _RUN_START)
        ]

    def _matching(self, kind: Kind) -> list[Path]:
        """Return the files that pass the first successful test of their names."""
        files = _visible(self.path)
        for test in kind.by_name:
            matching = [path for path in files if test(*_plain_name(path))]
            if matching:
                return self._filter_by_content(self._drop_compressed_copies(matching), kind)
        for test in kind.by_content:
            matching = [path for path in files if test(*_plain_name(path))]
            rows = [path for path in matching if first_line_matches(path, kind.row)]
            if rows:
                return self._drop_compressed_copies(rows)
        return []

    def _filter_by_content(self, paths: list[Path], kind: Kind) -> list[Path]:
        """If there are several files, keep those whose first line matches, if any does."""
        rows = (
            [path for path in paths if first_line_matches(path, kind.row)] if len(paths) > 1 else []
        )
        if not rows:
            return paths
        for path in paths:
            if path not in rows:
                self.notes.append(
                    f"{path.name} was not read: its first line does not look like a {kind.noun} "
                    "file."
                )
        return rows

    def _beir_qrels(self) -> list[Path]:
        """Return the file of the first known split in the folder `qrels`, or all its tables."""
        folder = self.path / _QRELS_FOLDER
        if not folder.is_dir():
            return []
        tables = [path for path in _visible(folder) if _plain_name(path)[1] in _TABLES]
        tables = self._drop_compressed_copies(tables)
        for split in _SPLITS:
            chosen = [path for path in tables if _stem(path) == split]
            if chosen:
                return chosen
        return tables

    def _drop_compressed_copies(self, paths: Sequence[Path]) -> list[Path]:
        """Remove compressed files whose uncompressed version is in the same folder."""
        unpacked = {path.name for path in paths if path.suffix.lower() not in COMPRESSED}
        kept = []
        for path in paths:
            if path.suffix.lower() in COMPRESSED and path.stem in unpacked:
                self.notes.append(f"{path.stem} was read, its compressed copy {path.name} was not.")
            else:
                kept.append(path)
        return kept

    def _contents(self) -> str:
        names = [path.name for path in _visible(self.path)]
        more = ", …" if len(names) > 10 else ""
        return f"the folder contains {', '.join(names[:10]) or 'no files'}{more}"


def _visible(folder: Path) -> list[Path]:
    """Return the files of a folder, sorted, without hidden files and editor backups (run.txt~)."""
    try:
        paths: Iterable[Path] = sorted(folder.iterdir())
    except OSError as error:
        raise DatasetError(f"{folder} cannot be read ({error}): check its permissions") from error
    return [
        path
        for path in paths
        if path.is_file()
        and not path.name.startswith((".", "#"))
        and not path.name.lower().endswith(("~", ".bak", ".orig", ".old", ".tmp", ".part", ".swp"))
    ]


def _plain_name(path: Path) -> tuple[str, str]:
    """Return the name in lower case without compression suffix: ('run.bm25.txt', '.txt')."""
    name = path.name.lower()
    for ending in COMPRESSED:
        name = name.removesuffix(ending)
    return name, Path(name).suffix


def _stem(path: Path) -> str:
    return Path(_plain_name(path)[0]).stem
