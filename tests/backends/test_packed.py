"""Tests of backend=packed, its encoder, and splitting micro-batches into groups."""

from __future__ import annotations

import json

import numpy as np
import pytest

from crossbench.backends import cpu_features
from crossbench.backends.bucketing import Cost, cut
from crossbench.errors import BackendUnavailable, ConfigError, ModelError, UnsupportedQuant
from crossbench.models.reading import read_folder
from crossbench.models.weights import read_weights
from tests.helpers import engine_checks as checks


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory):
    return checks.tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"cls_only": False},
        {"linear": "onednn"},
        {"streams": 1},
        {"chunk_tokens": 16},
        {"group_overhead": 0},
        {"group_overhead": 1e9},
    ],
    ids=str,
)
def test_scores_equal_transformers(tiny, tmp_path, options):
    batch = checks.tiny_batch()
    result = checks.backend("packed", tiny, "fp32", tmp_path, **options).infer(batch)
    np.testing.assert_allclose(result.values, checks.reference(tiny, batch), atol=1e-4)
    assert result.values.dtype == np.float32
    assert result.tokens_computed == batch.total_tokens


def test_roberta_positions_start_after_the_padding_id(tmp_path):
    model = checks.tiny_model(tmp_path, "roberta")
    batch = checks.tiny_batch(types=False)
    result = checks.backend("packed", model, "fp32", tmp_path).infer(batch)
    np.testing.assert_allclose(result.values, checks.reference(model, batch), atol=1e-4)


def test_a_score_does_not_depend_on_its_batch(tiny, tmp_path):
    engine = checks.backend("packed", tiny, "fp32", tmp_path)
    alone, among_long, among_short = checks.scores_in_batches(engine, checks.tiny_batch(), 1)
    assert among_long == pytest.approx(alone, abs=1e-5)
    assert among_short == pytest.approx(alone, abs=1e-5)


def test_a_closed_backend_can_be_loaded_again(tiny, tmp_path):
    engine = checks.backend("packed", tiny, "fp32", tmp_path)
    batch = checks.tiny_batch()
    before = engine.infer(batch).values
    engine.close()
    engine.load_model()
    engine.warmup([8, 16])
    np.testing.assert_allclose(engine.infer(batch).values, before, atol=1e-6)


def test_unsupported_precisions_and_options_are_refused(tiny, tmp_path):
    with pytest.raises(UnsupportedQuant, match="fp32"):
        checks.backend("packed", tiny, "int8", tmp_path)
    with pytest.raises(ConfigError, match="mkl or onednn"):
        checks.backend("packed", tiny, "fp32", tmp_path, linear="blas")


@pytest.mark.skipif(cpu_features.has_bf16(), reason="this CPU has bf16")
def test_error_for_bf16_names_the_missing_cpu_features(tiny, tmp_path):
    with pytest.raises(BackendUnavailable, match="AVX512_BF16"):
        checks.backend("packed", tiny, "bf16", tmp_path)


@pytest.mark.skipif(not cpu_features.has_bf16(), reason="this CPU has no bf16")
def test_bf16_scores_are_close(tiny, tmp_path):
    batch = checks.tiny_batch()
    result = checks.backend("packed", tiny, "bf16", tmp_path).infer(batch)
    np.testing.assert_allclose(result.values, checks.reference(tiny, batch), atol=0.2)


@pytest.mark.parametrize(
    ("key", "value"),
    [("model_type", "deberta-v2"), ("hidden_act", "relu"), ("is_decoder", True)],
)
def test_error_for_an_unsupported_family_names_another_backend(tmp_path, key, value):
    checks.tiny_model(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, key: value}))
    model = read_folder(tmp_path, "changed")
    with pytest.raises(ModelError, match=rf"{key}(.|\n)*backend=pytorch"):
        read_weights(model)


def test_cut_uses_every_sequence_once_and_respects_its_limits():
    lengths = np.random.default_rng(0).integers(3, 300, 100).astype(np.int32)
    groups = cut(lengths, Cost(30, 4e-4), max_tokens=512, max_pairs=8, parts=2)
    assert sorted(np.concatenate(groups).tolist()) == list(range(100))
    for group in groups:
        assert len(group) <= 8
        assert len(group) * lengths[group].max() <= 512
        assert (np.diff(lengths[group]) >= 0).all()


@pytest.mark.parametrize("overhead", [0.0, 10.0, 200.0])
def test_cut_finds_the_groups_of_least_cost(overhead):
    lengths = np.array([4, 90, 5, 50, 88, 52, 4], dtype=np.int32)
    cost = Cost(overhead, 1e-3)

    def total_cost(groups):
        return sum(
            overhead + len(g) * w * (1 + 1e-3 * w) for g in groups for w in [lengths[g].max()]
        )

    order = np.argsort(lengths, kind="stable")
    candidates = [
        np.split(order, [i + 1 for i in range(6) if mask >> i & 1]) for mask in range(1 << 6)
    ]
    found = cut(lengths, cost, max_tokens=10_000, max_pairs=100)
    assert total_cost(found) == pytest.approx(min(map(total_cost, candidates)))


def test_cut_makes_a_group_for_every_part():
    equal = np.full(8, 50, dtype=np.int32)
    assert len(cut(equal, Cost(30, 0), max_tokens=4096, max_pairs=64, parts=2)) == 2
