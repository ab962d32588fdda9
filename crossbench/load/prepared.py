"""Data sets with the token lengths of their texts, cached between cells.

Without the cache, generating the default data set and counting its tokens would take two seconds in
every cell.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from crossbench.errors import DatasetError
from crossbench.load.datasets import Dataset, LoadedDataset, loaded
from crossbench.load.lengths import LengthSummary, summarise
from crossbench.models.folder import ModelFolder
from crossbench.models.tokenizer import PairTokenizer
from crossbench.system.json_cache import cache_path, load_cached, save_cached
from crossbench.types import QueryPassages

_VERSION = 1  # increase it when the generated texts or the counted lengths change


@dataclass(frozen=True, slots=True)
class PreparedDataset:
    """A data set and the token lengths of its texts, without special tokens."""

    dataset: LoadedDataset
    query_tokens: LengthSummary
    passage_tokens: LengthSummary


def prepare(dataset: Dataset, model: ModelFolder, seed: int, folder: Path) -> PreparedDataset:
    """Load a data set and count its tokens. Generated texts and lengths are cached in `folder`.

    Data sets in files are always read again, since the files may have changed.

    Raises:
        DatasetError: the data set is missing, empty or malformed.
        ModelError: the model's tokenizer cannot be used.
    """
    tokenizer = PairTokenizer(model)
    # Everything that determines the result of PairTokenizer.count
    facts = hashlib.sha256(model.facts.tokenizer.serialized.encode()).hexdigest()
    tokenizer_key = (_VERSION, version("crossbench"), version("tokenizers"), facts)
    found = _texts(dataset, tokenizer, seed, folder, tokenizer_key)
    path = cache_path(folder, "lengths", tokenizer_key, version("numpy"), found.digest)
    if (lengths := _lengths(load_cached(path))) is None:
        queries = tokenizer.count([entry.query for entry in found.lists])
        passages = tokenizer.count([text for entry in found.lists for text in entry.passages])
        lengths = summarise(queries), summarise(passages)
        save_cached(path, [asdict(summary) for summary in lengths])
    return PreparedDataset(found, *lengths)


def _texts(
    dataset: Dataset, tokenizer: PairTokenizer, seed: int, folder: Path, tokenizer_key: object
) -> LoadedDataset:
    recipe = dataset.recipe(seed)
    if recipe is None:
        return dataset.load(tokenizer, seed)
    path = cache_path(folder, "texts", tokenizer_key, version("numpy"), recipe)
    if (kept := _dataset(load_cached(path))) is not None:
        return kept
    found = dataset.load(tokenizer, seed)
    save_cached(path, asdict(found))
    return found


def _dataset(document: Any) -> LoadedDataset | None:
    """Return the cached data set, or None if the document is invalid."""
    try:
        lists = [_entry(entry) for entry in document["lists"]]
        found = loaded(document["name"], document["source"], tuple(lists))
    except (AttributeError, DatasetError, KeyError, TypeError):
        return None
    return found if found.digest == document.get("digest") else None


def _entry(values: dict[str, Any]) -> QueryPassages:
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return QueryPassages(**fields)


def _lengths(document: Any) -> tuple[LengthSummary, LengthSummary] | None:
    try:
        queries, passages = (
            LengthSummary(**{**entry, "quantiles": tuple(entry["quantiles"])}) for entry in document
        )
    except (KeyError, TypeError, ValueError):
        return None
    return queries, passages
