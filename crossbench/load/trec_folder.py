"""Which files of a folder are the queries, collection, run and qrels of MS MARCO, TREC or BEIR."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from crossbench.errors import DatasetError
from crossbench.load.text_lines import COMPRESSED, first_line_matches

NONE = "none"  # dataset.run=none: take no run, whatever the folder holds
_NUMBER = r"[+-]?[\d.]+(?:e[+-]?\d+)?"
_TEXT_ROW = re.compile(r"[^\t]+\t.|\{", re.DOTALL)
_RUN_ROW = re.compile(rf"(?:\S+\s+\S+\s+\S+\s+\S+\s+{_NUMBER}\s+\S+|\S+\s+\S+\s+\d+)$", re.I)
_QRELS_ROW = re.compile(rf"(?:\S+\s+\S+\s+\S+\s+{_NUMBER}|\S+\t\S+\t(?:{_NUMBER}|score))$", re.I)
# Six columns, or MS MARCO's four (query, passage and their texts): nothing but a run has these
_RUN_START = re.compile(rf"\S+\s+Q0\s+\S+\s+\S+\s+{_NUMBER}\s+\S+$|\d+\t\d+\t[^\t]+\t.", re.I)
_TEXTS = (".tsv", ".jsonl")
_TABLES = (".txt", ".tsv")
_RUNS = (".trec", ".run", ".res")
# BEIR has its judgements in a folder, one file for each split
_QRELS_FOLDER, _SPLITS = "qrels", ("test", "dev", "train")

# run.bm25.txt, runs_1.tsv, but neither runtime.txt nor running.txt
_RUN_NAME = re.compile(r"runs?(?![a-z])")

Fits = Callable[[str, str], bool]  # a file's name in lower case without compression, its ending


def _is_run(name: str) -> bool:
    return _RUN_NAME.match(name) is not None


@dataclass(frozen=True)
class Kind:
    """One kind of file: its option, how its first line looks, and by which names it is found.

    `tiers` come in order of preference: of the first that any file fits, the file is taken.
    Those of `by_content` have an ending that says nothing, so their first line has to fit too.
    """

    option: str
    row: re.Pattern[str]
    examples: str
    tiers: tuple[Fits, ...]
    by_content: tuple[Fits, ...] = ()

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
    """A data set's folder. `notes` gets a sentence for each file that was passed over."""

    path: Path
    notes: list[str] = field(default_factory=list)

    def required(self, kind: Kind, name: str | None) -> Path:
        """The file that `name` says, or the only one of that kind.

        Raises:
            DatasetError: there is none, or more than one.
        """
        path = self.find(kind, name)
        if path is None:
            raise DatasetError(
                f"{self.path} has no {kind.noun} file ({kind.examples}, "
                f"also compressed: {', '.join(COMPRESSED)}): add one, or name it with "
                f"dataset.{kind.option}=FILE; {self._holds()}"
            )
        return path

    def find(self, kind: Kind, name: str | None) -> Path | None:
        """As required(), or None where there is none or `name` is `none`.

        Raises:
            DatasetError: there is no file of that name, or more than one that fits.
        """
        if name is not None and name != NONE:
            path = self.path / name
            if not path.is_file():
                raise DatasetError(
                    f"dataset.{kind.option}={name}: there is no such file in {self.path}; "
                    f"{self._holds()}"
                )
            return path
        if name == NONE:
            return None
        fitting = self._fitting(kind)
        if kind is QRELS:
            fitting += self._split_of_beir()
        if len(fitting) > 1:
            names = ", ".join(str(path.relative_to(self.path)) for path in fitting)
            raise DatasetError(
                f"{self.path} has several {kind.noun} files ({names}): choose one with "
                f"dataset.{kind.option}=FILE"
            )
        return fitting[0] if fitting else None

    def possible_runs(self, known: Iterable[Path | None]) -> list[str]:
        """Names of the files, also one folder down, that begin as a run and are not `known`."""
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

    def _fitting(self, kind: Kind) -> list[Path]:
        """Files of the best tier that any fits; where several do, those whose first line does."""
        files = _visible(self.path)
        for tier in kind.tiers:
            fitting = [path for path in files if tier(*_plain_name(path))]
            if fitting:
                return self._alike(self._plain_ones(fitting), kind)
        for tier in kind.by_content:
            fitting = [path for path in files if tier(*_plain_name(path))]
            rows = [path for path in fitting if first_line_matches(path, kind.row)]
            if rows:
                return self._plain_ones(rows)
        return []

    def _alike(self, paths: list[Path], kind: Kind) -> list[Path]:
        """Where there are several, those that begin like that kind of file, if any does."""
        rows = (
            [path for path in paths if first_line_matches(path, kind.row)] if len(paths) > 1 else []
        )
        if not rows:
            return paths
        for path in paths:
            if path not in rows:
                self.notes.append(
                    f"{path.name} is not read: its first line is not that of a {kind.noun} file."
                )
        return rows

    def _split_of_beir(self) -> list[Path]:
        """The judgements of the first split that the folder `qrels` has, else all its tables."""
        folder = self.path / _QRELS_FOLDER
        if not folder.is_dir():
            return []
        tables = [path for path in _visible(folder) if _plain_name(path)[1] in _TABLES]
        tables = self._plain_ones(tables)
        for split in _SPLITS:
            chosen = [path for path in tables if _stem(path) == split]
            if chosen:
                return chosen
        return tables

    def _plain_ones(self, paths: Sequence[Path]) -> list[Path]:
        """Without the compressed ones that lie beside their own unpacked file."""
        unpacked = {path.name for path in paths if path.suffix.lower() not in COMPRESSED}
        kept = []
        for path in paths:
            if path.suffix.lower() in COMPRESSED and path.stem in unpacked:
                self.notes.append(f"{path.stem} is read, and not {path.name} beside it.")
            else:
                kept.append(path)
        return kept

    def _holds(self) -> str:
        names = [path.name for path in _visible(self.path)]
        more = ", …" if len(names) > 10 else ""
        return f"it holds {', '.join(names[:10]) or 'no files'}{more}"


def _visible(folder: Path) -> list[Path]:
    """Files without hidden ones (.DS_Store, ._run.txt) and editors' backups (run.txt~), sorted."""
    try:
        paths: Iterable[Path] = sorted(folder.iterdir())
    except OSError as error:
        raise DatasetError(f"{folder} cannot be read ({error})") from error
    return [
        path
        for path in paths
        if path.is_file()
        and not path.name.startswith((".", "#"))
        and not path.name.lower().endswith(("~", ".bak", ".orig", ".old", ".tmp", ".part", ".swp"))
    ]


def _plain_name(path: Path) -> tuple[str, str]:
    """The name in lower case without its compression, and its ending: ('run.bm25.txt', '.txt')."""
    name = path.name.lower()
    for ending in COMPRESSED:
        name = name.removesuffix(ending)
    return name, Path(name).suffix


def _stem(path: Path) -> str:
    return Path(_plain_name(path)[0]).stem
