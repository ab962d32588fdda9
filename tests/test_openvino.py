"""backend=openvino."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from crossbench.errors import BackendUnavailable, ConfigError, UnsupportedQuant
from tests import engine_checks as checks

pytest.importorskip(
    "openvino", reason="OpenVINO is not installed: pip install 'crossbench[openvino]'"
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory):
    return checks.tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("cls_only", [True, False])
def test_fp32_scores_are_those_of_transformers(tiny, cache_dir, cls_only):
    batch = checks.tiny_batch()
    engine = checks.backend("openvino", tiny, "fp32", cache_dir, cls_only=cls_only)
    result = engine.infer(batch)
    np.testing.assert_allclose(result.values, checks.reference(tiny, batch), atol=1e-4)
    assert result.tokens_computed >= batch.total_tokens


@pytest.mark.parametrize(
    ("quant", "scaled"), [("fp32", []), ("int8", []), ("int8", ["down", "0.qkv"])], ids=str
)
def test_a_score_depends_on_its_own_pair_only(tiny, cache_dir, quant, scaled):
    """int8 too, but for rounding: each token has its own scale, or all have a calibrated one.

    A sum in another order can move an activation over a rounding boundary, by one step of 255,
    so int8 is asked for 2 % of the scores' spread where fp32 is asked for 1e-5.
    """
    engine = checks.backend("openvino", tiny, quant, cache_dir, int8={"token_scales": scaled})
    batch = checks.tiny_batch()
    limit = 1e-5 if quant == "fp32" else 0.02 * float(engine.infer(batch).values.std())
    alone, among_long, among_short = checks.in_company(engine, batch, 1)
    assert among_long == pytest.approx(alone, abs=limit)
    assert among_short == pytest.approx(alone, abs=limit)


def test_a_broken_cache_is_made_again(tiny, tmp_path):
    batch = checks.tiny_batch()
    before = checks.backend("openvino", tiny, "fp32", tmp_path).infer(batch).values
    (weights,) = (tmp_path / "openvino").glob("*/encoder.bin")
    weights.write_bytes(weights.read_bytes()[:-100] + b"x" * 100)
    after = checks.backend("openvino", tiny, "fp32", tmp_path).infer(batch).values
    np.testing.assert_array_equal(after, before)
    assert [folder.name[0] for folder in (tmp_path / "openvino").iterdir()].count(".") == 0


def test_without_the_library_it_says_what_to_install(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)  # Python's own way to make an import fail
    with pytest.raises(BackendUnavailable, match=r"pip install 'crossbench\[openvino\]'"):
        checks.backend("openvino", tiny, "fp32", tmp_path)


def test_refuses_what_it_cannot_compute(tiny, tmp_path):
    with pytest.raises(UnsupportedQuant, match="fp32, bf16, int8"):
        checks.backend("openvino", tiny, "fp16", tmp_path)
    with pytest.raises(ConfigError, match=r"int8\.token_scales names batch"):
        checks.backend("openvino", tiny, "int8", tmp_path, int8={"token_scales": ["batch"]})
    with pytest.raises(ConfigError, match=r"nowhere\.tsv"):
        checks.backend("openvino", tiny, "int8", tmp_path, int8={"text": "nowhere.tsv"})


def has_bf16() -> bool:
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.mark.skipif(has_bf16(), reason="OpenVINO computes bf16 on this CPU")
def test_bf16_is_refused_where_it_would_be_fp32(tiny, cache_dir):
    with pytest.raises(BackendUnavailable, match="bf16"):
        checks.backend("openvino", tiny, "bf16", cache_dir)


@pytest.mark.skipif(not has_bf16(), reason="OpenVINO has no bf16 on this CPU")
def test_bf16_runs_in_bf16(tiny, cache_dir):
    batch = checks.tiny_batch()
    engine = checks.backend("openvino", tiny, "bf16", cache_dir)
    assert any("bf16" in kernel.lower() for kernel in engine.precisions)
    np.testing.assert_allclose(engine.infer(batch).values, checks.reference(tiny, batch), atol=0.2)
