"""Cached data sets: they equal newly generated ones, and an invalid cache is ignored."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from crossbench.load.datasets import LoadedDataset, SyntheticDataset
from crossbench.load.prepared import PreparedDataset, prepare
from crossbench.models.folder import ModelFolder
from crossbench.models.sources import SeededModel
from crossbench.models.tokenizer import PairTokenizer
from crossbench.system.json_cache import cache_path, load_cached, save_cached


@dataclass(frozen=True)
class Counting(SyntheticDataset):
    """A synthetic data set that counts how often its texts are generated."""

    made: list[int] = field(default_factory=list)

    def load(self, tokenizer: PairTokenizer, seed: int) -> LoadedDataset:
        self.made.append(seed)
        return super().load(tokenizer, seed)


def dataset(queries: int = 5) -> Counting:
    return Counting("synthetic", queries, 4, None)


@pytest.fixture
def kept(seeded_model: ModelFolder, tmp_path: Path) -> PreparedDataset:
    return prepare(dataset(), seeded_model, 0, tmp_path)


def test_second_cell_has_the_same_texts_and_lengths(
    kept: PreparedDataset, seeded_model: ModelFolder, tmp_path: Path
) -> None:
    second = dataset()
    assert prepare(second, seeded_model, 0, tmp_path) == kept
    assert second.made == []
    counts = PairTokenizer(seeded_model).count([entry.query for entry in kept.dataset.lists])
    assert kept.query_tokens.mean == np.mean(counts)


def test_the_cache_key_contains_all_inputs_of_the_texts(
    kept: PreparedDataset, seeded_model: ModelFolder, tmp_path: Path, cache_dir: Path
) -> None:
    tiny = SeededModel("tiny", 1, 1, 32, 2, 64, 8000, 512, None).fetch(cache_dir)
    for other, model, seed in (
        (dataset(6), seeded_model, 0),
        (dataset(), seeded_model, 1),
        (dataset(), tiny, 0),
        (replace(dataset(), passage_tokens=[20, 40]), seeded_model, 0),
    ):
        found = prepare(other, model, seed, tmp_path)
        assert other.made == [seed]
        assert found.dataset.digest != kept.dataset.digest


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _changed(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"q0", b"q9", 1))


def _of_another_program(path: Path) -> None:
    path.write_text(json.dumps({"lists": "none"}), "utf-8")


def _of_another_kind(path: Path) -> None:
    save_cached(path, {"lists": [{"query": 1}], "name": "synthetic", "source": ""})


def _of_another_digest(path: Path) -> None:
    cached = load_cached(path)
    save_cached(path, {**cached, "digest": "0"} if "lists" in cached else [1, 2])


@pytest.mark.parametrize(
    "spoil", [_cut, _empty, _changed, _of_another_program, _of_another_kind, _of_another_digest]
)
def test_a_broken_or_foreign_cache_file_is_ignored(
    kept: PreparedDataset, seeded_model: ModelFolder, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    files = [*tmp_path.iterdir()]
    assert len(files) == 2  # one file for the texts, one for their lengths
    for file in files:
        spoil(file)
    second = dataset()
    assert prepare(second, seeded_model, 0, tmp_path) == kept
    assert second.made == [0]
    third = dataset()
    assert prepare(third, seeded_model, 0, tmp_path) == kept
    assert third.made == []


def test_a_cache_file_of_another_key_is_ignored(tmp_path: Path) -> None:
    one, other = cache_path(tmp_path, 1), cache_path(tmp_path, 2)
    save_cached(one, {"a": "ü\ud800"})
    assert load_cached(one) == {"a": "ü\ud800"}
    shutil.copy(one, other)
    assert load_cached(other) is None


def test_an_unwritable_cache_folder_only_disables_the_cache(
    kept: PreparedDataset, seeded_model: ModelFolder, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    assert prepare(dataset(), seeded_model, 0, tmp_path / "file") == kept
