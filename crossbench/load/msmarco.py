"""Reader for rows with the schema of microsoft/ms_marco on the Hugging Face hub."""

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

Row = tuple[str, Mapping[str, Any]]  # its location for error messages, and its columns
_COLUMNS = ["query", "query_id", "passages"]
_SPLITS = ("train", "validation", "test", "dev")


@dataclass
class Omissions:
    """What was skipped while reading: counts of null, blank or repeated values."""

    queries: int = 0
    passages: int = 0
    judgements: int = 0
    repeated: int = 0
    other_config: str = ""
    other_splits: list[str] = field(default_factory=list)

    def notes(self) -> list[str]:
        """Return a sentence for each kind of omission."""
        notes = []
        if self.other_config:
            notes.append(
                f"The data is of the configuration {self.other_config}: the requested "
                "configuration does not exist."
            )
        if self.other_splits:
            notes.append(
                "No file belongs to the requested split; these files were read instead: "
                f"{', '.join(self.other_splits)}."
            )
        if self.queries:
            notes.append(
                f"Skipped {counted(self.queries, 'row')} with a null or blank query, identifier or "
                "passage list."
            )
        if self.passages:
            notes.append(f"Skipped {counted(self.passages, 'passage')} with a null or blank text.")
        if self.judgements:
            notes.append(
                f"Sent {counted(self.judgements, 'passage')} with is_selected null, which count as "
                "not judged."
            )
        if self.repeated:
            notes.append(f"Skipped {counted(self.repeated, 'repeated row')}.")
        return notes


def parquet_rows(path: Path, config: str, split: str, omissions: Omissions) -> Iterator[Row]:
    """Yield the rows of a parquet file, or of the files of the split in a folder.

    A folder may be a copy of the hub's repository, with one folder per configuration. If no file
    name starts with the split's name, all files are read.

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
        omissions.other_splits = [name for name in others if name.startswith(_SPLITS)]
        _check_one_config(path, config, files, omissions)
    if not files:
        raise DatasetError(
            f"there is no parquet file in {path}: give a parquet file or a folder that contains one"
        )
    for file in files:
        number = 0
        try:
            if is_lfs_pointer(file):
                raise DatasetError(
                    f"{file} is a Git LFS pointer, not the file itself: run `git lfs pull` in its "
                    "repository"
                )
            with pq.ParquetFile(file) as parquet:
                for batch in parquet.iter_batches(batch_size=1024, columns=_COLUMNS):
                    for row in batch.to_pylist():
                        yield f"{file}, row {number}", row
                        number += 1
        except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
            raise DatasetError(
                f"{file} cannot be read as parquet from row {number} on ({error}): get the file "
                "again"
            ) from error


def _check_one_config(path: Path, config: str, files: list[Path], omissions: Omissions) -> None:
    """Check that all files are in one folder, since each folder is a separate configuration.

    Raises:
        DatasetError: the files are in several folders.
    """
    folders = sorted({str(file.parent.relative_to(path)) for file in files})
    if len(folders) > 1:
        raise DatasetError(
            f"{path} has parquet files in several folders ({', '.join(folders)}), and none is "
            f"named {config}: choose one, for example with dataset.config={folders[0]}, or give "
            "its path as dataset.path"
        )
    if folders and re.fullmatch(r"v\d.*", folders[0]) and folders[0] != config:
        omissions.other_config = folders[0]


def rows_to_lists(rows: Iterable[Row], omissions: Omissions) -> Iterator[QueryPassages]:
    """Yield one list per row with a query, an identifier and a passage. Count skipped values.

    `passages` is a struct of lists or a list of structs: the `datasets` library writes both.

    Raises:
        DatasetError: a row has another schema, or two different rows have the same query_id.
    """
    known: dict[str, tuple[str, bytes]] = {}
    for where, row in rows:
        try:
            query, query_id = _text(row["query"]), _identifier(row["query_id"])
            texts, selected = _passages(row["passages"])
            relevance = [_grade(value) for value in selected]
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DatasetError(
                f"{where}: the row does not have the schema of microsoft/ms_marco ({error!r}): it "
                "needs query, query_id, passages{is_selected, passage_text}"
            ) from error
        if len(selected) != len(texts):
            raise DatasetError(
                f"{where}: the row has {len(texts)} passages but {len(selected)} values of "
                "is_selected: give one per passage"
            )
        kept = [index for index, text in enumerate(texts) if text.strip()]
        omissions.passages += len(texts) - len(kept)
        if not (query.strip() and query_id and kept):
            omissions.queries += 1
            continue
        entry = QueryPassages(
            query_id=query_id,
            query=query.strip(),
            passage_ids=tuple(f"{query_id}-{index}" for index in kept),
            passages=tuple(texts[index] for index in kept),
            relevance=tuple(relevance[index] for index in kept),
        )
        content = hashlib.sha256(repr(entry).encode()).digest()
        first, first_content = known.setdefault(query_id, (where, content))
        if first != where:
            if first_content != content:
                raise DatasetError(
                    f"{where}: query_id {query_id} has different content in {first}: keep one of "
                    "the two rows, or use each file separately"
                )
            omissions.repeated += 1
            continue
        omissions.judgements += entry.relevance.count(None) if entry.relevance else 0
        yield entry


def _passages(value: Any) -> tuple[list[str], list[Any]]:
    """Return the texts ('' for null) and their values of is_selected."""
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
    # A null struct keeps its position as a passage without text and is counted
    return (
        ["" if item is None else _text(item["passage_text"]) for item in value],
        [None if item is None else item["is_selected"] for item in value],
    )


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _text(value: Any) -> str:
    """Return text unchanged, bytes decoded as UTF-8, and '' for null."""
    if _missing(value):
        return ""
    if isinstance(value, bytes):
        return value.decode()
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


def _identifier(value: Any) -> str:
    """Return an identifier as text. pandas turns 7 into 7.0 in a column with nulls."""
    if not isinstance(value, int | float) or _missing(value):
        return _text(value).strip()
    return str(_whole(value))


def _grade(value: Any) -> int | None:
    if _missing(value):
        return None
    return int(value) if isinstance(value, str) else _whole(value)


def _whole(value: Any) -> int:
    if not isinstance(value, int | float) or value != int(value):
        raise ValueError(f"{value!r} is not a whole number")
    return int(value)
