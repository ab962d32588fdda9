"""Data sets: generated text or files, as lists of a query and its passages."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from crossbench.errors import DatasetError
from crossbench.load.lengths import PASSAGES, QUERIES
from crossbench.load.msmarco import Omissions, Row, parquet_rows, rows_to_lists
from crossbench.load.synthetic import make_lists
from crossbench.load.trec import read_trec
from crossbench.models.tokenizer import PairTokenizer
from crossbench.models.wordpiece import read_word_list
from crossbench.types import QueryPassages


@dataclass(frozen=True, slots=True)
class LoadedDataset:
    """A data set with its lists in the order in which they are sent.

    `source` describes where the data comes from. `digest` is a hash of all texts, identifiers and
    judgements, 16 hexadecimal digits: equal digests mean equal traffic. `files` are the files that
    were read from a folder. `warnings` are sentences about data that was skipped.
    `judged_left_out` is the number of queries with a relevant passage that are left out because
    their text or their candidates are missing.
    """

    name: str
    source: str
    digest: str
    lists: tuple[QueryPassages, ...]
    files: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    judged_left_out: int = 0


class Dataset(Protocol):
    """One choice of conf/dataset."""

    def check(self) -> None:
        """Refuse a path that does not exist, without reading anything.

        Raises:
            DatasetError: the message names the path.
        """
        ...

    def recipe(self, seed: int) -> object:
        """Return a value whose repr, with the tokenizer, determines generated texts.

        Such texts are cached between cells. Returns None for a data set that is read from files.
        """
        ...

    def load(self, tokenizer: PairTokenizer, seed: int) -> LoadedDataset:
        """Load all lists. Only generated data depends on `tokenizer` and `seed`.

        Raises:
            DatasetError: the data set is missing, empty or malformed.
        """
        ...


@dataclass(frozen=True)
class SyntheticDataset:
    """Generated text whose token lengths, with the served tokenizer, follow MS MARCO's.

    If `passage_tokens` is given, the lengths of the passages cycle through it instead.

    Raises:
        DatasetError: `queries`, `passages_per_query` or a length is below 1.
    """

    name: str
    queries: int
    passages_per_query: int
    passage_tokens: Sequence[int] | None

    def __post_init__(self) -> None:
        for key, value in (
            ("queries", self.queries),
            ("passages_per_query", self.passages_per_query),
        ):
            if value < 1:
                raise DatasetError(f"dataset.{key}={value}: give at least 1")
        lengths = self.passage_tokens
        if lengths is not None and (not lengths or min(lengths) < 1):
            raise DatasetError(
                f"dataset.passage_tokens={list(lengths)}: give lengths of at least 1, for example "
                "[20,400], or null for the lengths of MS MARCO"
            )

    def check(self) -> None:
        """Do nothing: the texts need no files."""

    def recipe(self, seed: int) -> object:
        shape = (self.queries, self.passages_per_query, self.passage_tokens)
        return "synthetic", self.name, seed, *shape, QUERIES, PASSAGES, read_word_list()

    def load(self, tokenizer: PairTokenizer, seed: int) -> LoadedDataset:
        """Generate the texts, which depend only on the seed and the tokenizer."""
        lists = make_lists(
            tokenizer, seed, self.queries, self.passages_per_query, self.passage_tokens
        )
        return loaded(self.name, f"synthetic, seed {seed}", lists)


@dataclass(frozen=True)
class TrecDataset:
    """A folder with queries, a collection and a run or qrels, in the format of MS MARCO or BEIR.

    `queries_file`, `collection_file`, `run` and `qrels` are file names in the folder. None finds
    the file by its name, and `none` uses no run or no qrels. Candidates are in the run's order, or
    are the judged passages if there is no run. `limit` is the maximum number of queries.

    Raises:
        DatasetError: no folder was given, or `limit` is below 1.
    """

    name: str
    path: str | None
    queries_file: str | None
    collection_file: str | None
    run: str | None
    qrels: str | None
    limit: int | None

    def __post_init__(self) -> None:
        _check_limit(self.limit)
        if not (self.path or "").strip():
            raise DatasetError(f"dataset={self.name} reads a folder: give dataset.path=DIR")

    def check(self) -> None:
        """Refuse a path without a folder.

        Raises:
            DatasetError: the folder does not exist.
        """
        self._folder()

    def recipe(self, seed: int) -> None:
        """Return None, since the data is read from files."""

    def load(self, tokenizer: PairTokenizer, seed: int) -> LoadedDataset:
        """Read the folder.

        Raises:
            DatasetError: a file is missing or empty, a line is malformed, or the files do not
                belong together.
        """
        folder = self._folder()
        data = read_trec(
            folder, self.queries_file, self.collection_file, self.run, self.qrels, self.limit
        )
        return loaded(
            self.name,
            str(folder),
            data.lists,
            files=data.files,
            warnings=data.warnings,
            judged_left_out=data.judged_left_out,
        )

    def _folder(self) -> Path:
        assert self.path
        folder = _existing(self.path)
        if not folder.is_dir():
            raise DatasetError(
                f"dataset.path={self.path} is a file: give the folder that contains it, and unpack "
                "it first if it is an archive"
            )
        return folder


@dataclass(frozen=True)
class MsMarcoDataset:
    """microsoft/ms_marco from the Hugging Face hub, or parquet files with the same schema.

    `path` is a parquet file or a folder of them; None downloads `repo` with the `datasets` library.
    `limit` is the maximum number of queries.

    Raises:
        DatasetError: `limit` is below 1.
    """

    name: str
    path: str | None
    repo: str
    config: str
    split: str
    limit: int | None

    def __post_init__(self) -> None:
        _check_limit(self.limit)

    def check(self) -> None:
        """Refuse a path without a file or folder.

        Raises:
            DatasetError: it does not exist.
        """
        if self.path and self.path.strip():
            _existing(self.path)

    def recipe(self, seed: int) -> None:
        """Return None, since the data is read from files."""

    def load(self, tokenizer: PairTokenizer, seed: int) -> LoadedDataset:
        """Load one list per row with at least one passage. `is_selected` is the relevance.

        Raises:
            DatasetError: a file is missing or has another schema, or the download failed.
        """
        omissions = Omissions()
        if self.path and self.path.strip():
            path = _existing(self.path)
            rows: Iterable[Row] = parquet_rows(path, self.config, self.split, omissions)
            source = str(path)
        else:
            source = f"{self.repo} {self.config} {self.split}"
            rows = ((f"{source}, row {index}", row) for index, row in enumerate(self._hub_rows()))
        lists = tuple(islice(rows_to_lists(rows, omissions), self.limit))
        return loaded(self.name, source, lists, warnings=tuple(omissions.notes()))

    def _hub_rows(self) -> Iterable[dict[str, Any]]:
        try:
            import datasets
        except ImportError:
            raise DatasetError(
                f"dataset={self.name} needs the `datasets` library to download {self.repo}: pip "
                "install 'crossbench[hub]', or give a parquet file with dataset.path=FILE"
            ) from None
        # Load only the rows in use: the training split alone has over a gigabyte of text
        split = f"{self.split}[:{self.limit}]" if self.limit else self.split
        try:
            rows: Iterable[dict[str, Any]] = datasets.load_dataset(  # nosec B615  # data only
                self.repo, self.config, split=split
            )
        except Exception as error:  # the library's errors have no common base class
            reason = (str(error).strip() or repr(error)).splitlines()[0]
            raise DatasetError(
                f"cannot download {self.repo} {self.config} from the Hugging Face hub ({reason}): "
                "check the network and dataset.config, or give a parquet file with "
                "dataset.path=FILE"
            ) from error
        return rows


def _existing(path: str) -> Path:
    text = path.strip()
    resolved = Path(text).expanduser().resolve()
    if not resolved.exists():
        where = "" if text == str(resolved) else f" ({resolved})"
        raise DatasetError(f"dataset.path={text} does not exist{where}: check the path")
    return resolved


def _check_limit(limit: int | None) -> None:
    if limit is not None and limit < 1:
        raise DatasetError(f"dataset.limit={limit}: give at least 1, or null for all")


def loaded(
    name: str,
    source: str,
    lists: tuple[QueryPassages, ...],
    files: tuple[str, ...] = (),
    warnings: tuple[str, ...] = (),
    judged_left_out: int = 0,
) -> LoadedDataset:
    """Return the data set with its digest.

    Raises:
        DatasetError: there are no lists. The message includes the `warnings`.
    """
    if not lists:
        details = " ".join(("nothing to send.", *warnings)).removesuffix(".")
        raise DatasetError(f"dataset={name} ({source}) has no query with passages: {details}")
    hasher = hashlib.sha256()
    for item in lists:
        judged = (item.relevance, item.other_grades)
        hasher.update(repr((item.query_id, item.query, *judged)).encode())
        hasher.update(repr((item.passage_ids, item.passages)).encode())
    digest = hasher.hexdigest()[:16]
    return LoadedDataset(name, source, digest, lists, files, warnings, judged_left_out)
