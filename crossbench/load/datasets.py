"""What is sent: synthetic text, TREC files, MS MARCO; each becomes lists of query and passages."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from crossbench.errors import DatasetError
from crossbench.load.synthetic import make_lists
from crossbench.load.trec import read_trec
from crossbench.models.tokenizer import PairTokenizer
from crossbench.types import QueryPassages


@dataclass(frozen=True, slots=True)
class LoadedDataset:
    """Lists in the order in which they are sent.

    `source` says where they come from. `digest` is a hash of all texts, identifiers and judgements,
    16 hexadecimal digits: equal digests mean equal traffic.
    """

    name: str
    source: str
    digest: str
    lists: tuple[QueryPassages, ...]


class Dataset(Protocol):
    """One choice of conf/dataset."""

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

    def load(self, tokenizer: PairTokenizer, seed: int) -> LoadedDataset:
        """Deterministic in the seed and the tokenizer."""
        lists = make_lists(
            tokenizer, seed, self.queries, self.passages_per_query, self.passage_tokens
        )
        return _loaded(self.name, f"synthetic, seed {seed}", lists)


@dataclass(frozen=True)
class TrecDataset:
    """A folder with queries.tsv, collection.tsv and a run or a qrels file.

    `queries_file`, `collection_file`, `run` and `qrels` name files in the folder; null finds them.
    Candidates come in the run's order, without a run from the judgements. `limit` keeps the first
    queries, null all.

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

    def load(self, tokenizer: PairTokenizer, seed: int) -> LoadedDataset:
        """The lists of the folder.

        Raises:
            DatasetError: a file is missing or empty, or a line malformed (named by its number).
        """
        assert self.path
        folder = _existing(self.path)
        if not folder.is_dir():
            raise DatasetError(f"dataset.path={self.path} is a file: give the folder that holds it")
        lists = read_trec(folder, self.queries_file, self.collection_file, self.run, self.qrels)
        return _loaded(self.name, str(folder), _limited(lists, self.limit))


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

    def load(self, tokenizer: PairTokenizer, seed: int) -> LoadedDataset:
        """One list per row with at least one passage; `is_selected` is the relevance.

        Raises:
            DatasetError: there is no such file, it has another schema, or the hub cannot be had.
        """
        if self.path and self.path.strip():
            path = _existing(self.path)
            rows: Iterable[dict[str, Any]] = self._local_rows(path)
            source = str(path)
        else:
            rows, source = self._hub_rows(), f"{self.repo} {self.config} {self.split}"
        lists = _limited(_msmarco_lists(rows, source), self.limit)
        return _loaded(self.name, source, lists)

    def _local_rows(self, path: Path) -> Iterator[dict[str, Any]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        files = [path]
        if path.is_dir():
            # A folder may hold several splits, in the hub's naming; without it every file counts.
            every = sorted(path.rglob("*.parquet"))
            files = [file for file in every if file.name.startswith(self.split)] or every
        if not files:
            raise DatasetError(f"no parquet file in {path}: give a file or folder that has one")
        for file in files:
            try:
                with pq.ParquetFile(file) as parquet:
                    for batch in parquet.iter_batches(
                        batch_size=1024, columns=["query", "query_id", "passages"]
                    ):
                        yield from batch.to_pylist()
            except (OSError, pa.ArrowException) as error:
                raise DatasetError(f"{file} cannot be read as parquet ({error})") from error

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


def _msmarco_lists(rows: Iterable[dict[str, Any]], source: str) -> Iterator[QueryPassages]:
    for number, row in enumerate(rows):
        try:
            passages = row["passages"]
            texts = tuple(str(text) for text in passages["passage_text"])
            selected = tuple(int(value) for value in passages["is_selected"])
            query, query_id = str(row["query"]).strip(), str(row["query_id"])
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetError(
                f"{source}, row {number}: not the schema of microsoft/ms_marco ({error!r}); it "
                "needs query, query_id, passages{is_selected, passage_text}"
            ) from error
        if len(selected) != len(texts):
            raise DatasetError(
                f"{source}, row {number}: {len(texts)} passages but {len(selected)} is_selected"
            )
        kept = [index for index, text in enumerate(texts) if text.strip()]
        if query and kept:
            yield QueryPassages(
                query_id=query_id,
                query=query,
                passage_ids=tuple(f"{query_id}-{index}" for index in kept),
                passages=tuple(texts[index] for index in kept),
                relevance=tuple(selected[index] for index in kept),
            )


def _existing(path: str) -> Path:
    text = path.strip()
    resolved = Path(text).expanduser().resolve()
    if not resolved.exists():
        raise DatasetError(f"dataset.path={text} does not exist ({resolved})")
    return resolved


def _check_limit(limit: int | None) -> None:
    if limit is not None and limit < 1:
        raise DatasetError(f"dataset.limit={limit}: give at least 1, or null for all")


def _limited(lists: Iterator[QueryPassages], limit: int | None) -> tuple[QueryPassages, ...]:
    if limit is None:
        return tuple(lists)
    return tuple(item for _, item in zip(range(limit), lists, strict=False))


def _loaded(name: str, source: str, lists: tuple[QueryPassages, ...]) -> LoadedDataset:
    if not lists:
        raise DatasetError(f"dataset={name} ({source}) has no query with passages: nothing to send")
    hasher = hashlib.sha256()
    for item in lists:
        judged = (item.relevance, item.judged_elsewhere)
        hasher.update(repr((item.query_id, item.query, *judged)).encode())
        hasher.update(repr((item.passage_ids, item.passages)).encode())
    return LoadedDataset(name, source, hasher.hexdigest()[:16], lists)
