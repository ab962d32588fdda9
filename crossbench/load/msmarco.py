"""Rows in the schema of the hub's microsoft/ms_marco, as lists of a query and its passages."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crossbench.errors import DatasetError
from crossbench.models.json_file import is_lfs_pointer
from crossbench.types import QueryPassages
from crossbench.wording import counted

Row = tuple[str, Mapping[str, Any]]  # where it stands, and its columns
_COLUMNS = ["query", "query_id", "passages"]
_SPLITS = ("train", "validation", "test", "dev")


@dataclass
class Omissions:
    """How many values were null or blank, or repeated, and were left out therefore."""

    queries: int = 0
    passages: int = 0
    judgements: int = 0
    repeated: int = 0
    other_config: str = ""
    other_splits: list[str] = field(default_factory=list)

    def notes(self) -> list[str]:
        """A sentence for each kind."""
        notes = []
        if self.other_config:
            notes.append(f"Read is {self.other_config}: there is no other configuration.")
        if self.other_splits:
            notes.append(
                f"No file is of the split asked for; read: {', '.join(self.other_splits)}."
            )
        if self.queries:
            notes.append(
                f"{counted(self.queries, 'row')} without a query, an identifier or any passage "
                "left out (null or blank)."
            )
        if self.passages:
            notes.append(f"{counted(self.passages, 'passage')} left out (null or blank).")
        if self.judgements:
            notes.append(
                f"{counted(self.judgements, 'passage')} with is_selected null: sent, and taken as "
                "not judged."
            )
        if self.repeated:
            notes.append(f"{counted(self.repeated, 'row')} repeated word for word, used once.")
        return notes


def parquet_rows(path: Path, config: str, split: str, left_out: Omissions) -> Iterator[Row]:
    """The rows of a parquet file, or of those in a folder that are of the split.

    A folder may be a copy of the hub's, with a folder for each config. Where no file has the
    split's name, all are read.

    Raises:
        DatasetError: there is no parquet file, or it cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = [path]
    if path.is_dir():
        folder = path / config if config and (path / config).is_dir() else path
        every = [
            file
            for file in sorted(folder.rglob("*.parquet"))
            if not any(part.startswith(".") for part in file.relative_to(folder).parts)
        ]
        files = [file for file in every if file.name.startswith(split)] or every
        others = [file.name for file in files if not file.name.startswith(split)]
        left_out.other_splits = [name for name in others if name.startswith(_SPLITS)]
        _check_one_config(path, config, files, left_out)
    if not files:
        raise DatasetError(f"no parquet file in {path}: give a file or folder that has one")
    for file in files:
        number = 0
        try:
            if is_lfs_pointer(file):
                raise DatasetError(
                    f"{file} is a Git LFS pointer, not the file itself: run `git lfs pull` where "
                    "it is from"
                )
            with pq.ParquetFile(file) as parquet:
                for batch in parquet.iter_batches(batch_size=1024, columns=_COLUMNS):
                    for row in batch.to_pylist():
                        yield f"{file}, row {number}", row
                        number += 1
        except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
            raise DatasetError(
                f"{file} cannot be read as parquet from row {number} on ({error})"
            ) from error


def _check_one_config(path: Path, config: str, files: list[Path], left_out: Omissions) -> None:
    """Refuse files of several folders beside each other: each is a data set of its own.

    Raises:
        DatasetError: with the folders that there are.
    """
    folders = sorted({str(file.parent.relative_to(path)) for file in files})
    if len(folders) > 1:
        raise DatasetError(
            f"{path} has parquet files in several folders ({', '.join(folders)}), and none is "
            f"called {config}: choose one with dataset.config={folders[0]}, or give it as "
            "dataset.path"
        )
    if folders and re.fullmatch(r"v\d.*", folders[0]) and folders[0] != config:
        left_out.other_config = folders[0]


def rows_to_lists(rows: Iterable[Row], left_out: Omissions) -> Iterator[QueryPassages]:
    """One list per row that has a query, an identifier and a passage; what is null is counted.

    `passages` is a struct of lists or a list of structs: the `datasets` library writes either.

    Raises:
        DatasetError: a row has another schema, or one query_id stands for two different rows.
    """
    known: dict[str, tuple[str, bytes]] = {}
    for where, row in rows:
        try:
            query, query_id = _text(row["query"]), _identifier(row["query_id"])
            texts, selected = _passages(row["passages"])
            relevance = [_grade(value) for value in selected]
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DatasetError(
                f"{where}: not the schema of microsoft/ms_marco ({error!r}); it needs query, "
                "query_id, passages{is_selected, passage_text}"
            ) from error
        if len(selected) != len(texts):
            raise DatasetError(f"{where}: {len(texts)} passages but {len(selected)} is_selected")
        kept = [index for index, text in enumerate(texts) if text.strip()]
        left_out.passages += len(texts) - len(kept)
        if not (query.strip() and query_id and kept):
            left_out.queries += 1
            continue
        entry = QueryPassages(
            query_id=query_id,
            query=query.strip(),
            passage_ids=tuple(f"{query_id}-{index}" for index in kept),
            passages=tuple(texts[index] for index in kept),
            relevance=tuple(relevance[index] for index in kept),
        )
        content = hashlib.sha256(repr(entry).encode()).digest()
        first, same = known.setdefault(query_id, (where, content))
        if first != where:
            if same != content:
                raise DatasetError(
                    f"{where}: query_id {query_id} stands for other content than in {first}: keep "
                    "one of them, or give each file alone"
                )
            left_out.repeated += 1
            continue
        left_out.judgements += entry.relevance.count(None) if entry.relevance else 0
        yield entry


def _passages(value: Any) -> tuple[list[str], list[Any]]:
    """Texts, a null one as '', and what is_selected says of each."""
    if value is None:
        return [], []
    if isinstance(value, Mapping):
        texts, selected = value["passage_text"], value["is_selected"]
        for name, column in (("passage_text", texts), ("is_selected", selected)):
            if column is not None and not isinstance(column, list | tuple):
                raise TypeError(f"{name} is {type(column).__name__}, not a list")
        texts = texts or []
        return [_text(text) for text in texts], [None] * len(
            texts
        ) if selected is None else selected
    if not isinstance(value, list | tuple):
        raise TypeError(f"passages is {type(value).__name__}")
    # A null struct is a passage without a text: it keeps its place, and is counted
    return (
        ["" if item is None else _text(item["passage_text"]) for item in value],
        [None if item is None else item["is_selected"] for item in value],
    )


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _text(value: Any) -> str:
    """Text as it is, bytes as UTF-8, null as ''; whatever else is no text."""
    if _missing(value):
        return ""
    if isinstance(value, bytes):
        return value.decode()
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _identifier(value: Any) -> str:
    """Text, or a whole number: pandas makes 7.0 of 7 in a column that has a null."""
    if not isinstance(value, int | float) or _missing(value):
        return _text(value).strip()
    return str(_whole(value))


def _grade(value: Any) -> int | None:
    if _missing(value):
        return None
    return int(value) if isinstance(value, str) else _whole(value)


def _whole(value: Any) -> int:
    if not isinstance(value, int | float) or value != int(value):
        raise ValueError(f"{value!r} is no whole number")
    return int(value)
