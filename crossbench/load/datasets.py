"""What is sent: synthetic text or files, as lists of a query and its passages."""

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
    """Lists in the order in which they are sent.

    `source` says where they come from. `digest` is a hash of all texts, identifiers and judgements,
    16 hexadecimal digits: equal digests mean equal traffic. `files` are those that were read of a
    folder. `warnings` are sentences about what was left out. `judged_left_out` is the number of
    queries with a relevant passage that could not be ranked, for want of a text or of candidates.
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

    def recipe(self, seed: int) -> object:
        """What the texts follow from beside the tokenizer, by its repr; None: they lie in files.

        Texts with a recipe are kept between cells.
        """
        ...

    def load(self, tokenizer: PairTokenizer, seed: int) -> LoadedDataset:
        """All lists; `tokenizer` and `seed` matter only to data that is made up.

        Raises:
            DatasetError: it is missing, empty or malformed.
        """
        ...


@dataclass(frozen=True)
class SyntheticDataset:
    """Made-up text whose lengths under the served tokenizer follow MS MARCO's.

    Or whose passages have, in turn, the token lengths `passage_tokens`.

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
                "[20,400], or null for those of MS MARCO"
            )

    def recipe(self, seed: int) -> object:
        shape = (self.queries, self.passages_per_query, self.passage_tokens)
        return "synthetic", self.name, seed, *shape, QUERIES, PASSAGES, read_word_list()

    def load(self, tokenizer: PairTokenizer, seed: int) -> LoadedDataset:
        """Deterministic in the seed and the tokenizer."""
        lists = make_lists(
            tokenizer, seed, self.queries, self.passages_per_query, self.passage_tokens
        )
        return loaded(self.name, f"synthetic, seed {seed}", lists)


@dataclass(frozen=True)
class TrecDataset:
    """A folder with queries, a collection and a run or qrels, as MS MARCO, TREC or BEIR have them.

    `queries_file`, `collection_file`, `run` and `qrels` name files in the folder; null finds them,
    and `none` takes no run or no qrels. Candidates come in the run's order, without a run from the
    judgements. `limit` keeps the first queries, null all.

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
            raise DatasetError(f"dataset={self.name} needs its files: give dataset.path=DIR")

    def recipe(self, seed: int) -> None:
        """Its files are read for each cell."""

    def load(self, tokenizer: PairTokenizer, seed: int) -> LoadedDataset:
        """The lists of the folder.

        Raises:
            DatasetError: a file is missing or empty, a line malformed (named by its number), or
                the files do not belong together.
        """
        assert self.path
        folder = _existing(self.path)
        if not folder.is_dir():
            raise DatasetError(
                f"dataset.path={self.path} is a file: give the folder that holds it (an archive "
                "has to be unpacked)"
            )
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


@dataclass(frozen=True)
class MsMarcoDataset:
    """The hub's microsoft/ms_marco, or parquet files in its schema.

    `path` is such a file or a folder of them; null downloads `repo` with the `datasets` library.
    `limit` keeps the first queries, null all.

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

    def recipe(self, seed: int) -> None:
        """Its files are read for each cell."""

    def load(self, tokenizer: PairTokenizer, seed: int) -> LoadedDataset:
        """One list per row with at least one passage; `is_selected` is the relevance.

        Raises:
            DatasetError: there is no such file, it has another schema, or the hub cannot be had.
        """
        left_out = Omissions()
        if self.path and self.path.strip():
            path = _existing(self.path)
            rows: Iterable[Row] = parquet_rows(path, self.config, self.split, left_out)
            source = str(path)
        else:
            source = f"{self.repo} {self.config} {self.split}"
            rows = ((f"{source}, row {index}", row) for index, row in enumerate(self._hub_rows()))
        lists = tuple(islice(rows_to_lists(rows, left_out), self.limit))
        return loaded(self.name, source, lists, warnings=tuple(left_out.notes()))

    def _hub_rows(self) -> Iterable[dict[str, Any]]:
        try:
            import datasets
        except ImportError:
            raise DatasetError(
                f"dataset={self.name} needs the `datasets` library to fetch {self.repo}: pip "
                "install 'crossbench[hub]', or give a parquet file with dataset.path=FILE"
            ) from None
        # Only the rows that are used: the training split alone is over a gigabyte of text.
        split = f"{self.split}[:{self.limit}]" if self.limit else self.split
        try:
            rows: Iterable[dict[str, Any]] = datasets.load_dataset(
                self.repo, self.config, split=split
            )
        except Exception as error:  # the hub's errors have no common base
            reason = (str(error).strip() or repr(error)).splitlines()[0]
            raise DatasetError(
                f"cannot fetch {self.repo} {self.config} from the Hugging Face hub ({reason}): "
                "check the network and dataset.config, or give a parquet file with "
                "dataset.path=FILE"
            ) from error
        return rows


def _existing(path: str) -> Path:
    text = path.strip()
    resolved = Path(text).expanduser().resolve()
    if not resolved.exists():
        raise DatasetError(f"dataset.path={text} does not exist ({resolved})")
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
    """A data set with its digest.

    Raises:
        DatasetError: it has no lists; with the `warnings`, which may say why.
    """
    if not lists:
        why = " ".join(("nothing to send.", *warnings)).removesuffix(".")
        raise DatasetError(f"dataset={name} ({source}) has no query with passages: {why}")
    hasher = hashlib.sha256()
    for item in lists:
        judged = (item.relevance, item.other_grades)
        hasher.update(repr((item.query_id, item.query, *judged)).encode())
        hasher.update(repr((item.passage_ids, item.passages)).encode())
    digest = hasher.hexdigest()[:16]
    return LoadedDataset(name, source, digest, lists, files, warnings, judged_left_out)
