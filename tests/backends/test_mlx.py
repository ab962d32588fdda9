"""Tests of backend=mlx, on the Apple GPU if there is one, else on the CPU."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from crossbench.backends.base import Deployment
from crossbench.backends.mlx import MlxBackend, _Engine
from crossbench.backends.pytorch import PyTorchBackend
from crossbench.errors import BackendUnavailable, ConfigError, UnsupportedDevice
from crossbench.models.folder import ModelFolder
from crossbench.models.weights import Linear, read_weights
from crossbench.types import Float32Array, Quant, TokenBatch
from tests.helpers import engine_checks as checks
from tests.helpers.places import REPO

YAML = REPO / "conf/backend/mlx.yaml"
LENGTHS = (7, 16, 3)

# The number of weights of the tiny model that int8 and int4 quantise: the word embeddings and the
# linear layers
QUANTISED = 256 * 64 + 2 * (4 * 64 * 64 + 2 * 64 * 128)
STORED_TYPE = {Quant.FP32: "float32", Quant.FP16: "float16", Quant.BF16: "bfloat16"}

# The tiny model's large weights amplify rounding errors. The allowed error of a half precision is
# this multiple of the error of PyTorch's forward pass in it. MLX's error was about twice PyTorch's;
# the rest is for a different order of summation on other machines.
HALF_FACTOR = 4
# Compared with fp32 on weights that were rounded beforehand, int8 and int4 differ only in their
# activations: fp16 on a GPU, and fp32 on a CPU, where only the order of summation differs.
ROUNDED_TOLERANCE = {"cpu": 1e-4, "mps": 0.1}
BITS = {Quant.INT8: 8, Quant.INT4: 4}


def make(
    model: ModelFolder, quant: Quant = Quant.FP32, device: str = "auto", **options: object
) -> MlxBackend:
    """Return the backend of conf/backend/mlx.yaml, not loaded."""
    config = OmegaConf.load(YAML)
    config.pop("defaults")
    config.merge_with(options)
    deployment = Deployment(model, quant, device, 2, Path())
    backend: MlxBackend = instantiate(config, _partial_=True)(deployment=deployment)
    return backend


def load(model: ModelFolder, quant: Quant = Quant.FP32, **options: object) -> MlxBackend:
    require_mlx()
    backend = make(model, quant, **options)
    backend.load_model()
    return backend


def require_mlx() -> None:
    reason = "MLX is not installed: pip install 'crossbench[mlx]'"
    pytest.importorskip("mlx.core", reason=reason, exc_type=ImportError)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return checks.tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def batch() -> TokenBatch:
    return checks.tiny_batch(LENGTHS)


@pytest.mark.parametrize("options", [{}, {"cls_only": False}, {"grouping": {"max_pairs": 1}}])
def test_scores_equal_transformers(
    tiny: ModelFolder, batch: TokenBatch, options: dict[str, object]
) -> None:
    result = load(tiny, **options).infer(batch)
    np.testing.assert_allclose(result.values, checks.reference(tiny, batch), atol=1e-4, rtol=0)
    assert result.values.dtype == np.float32
    alone = options == {"grouping": {"max_pairs": 1}}
    assert result.tokens_computed == (sum(LENGTHS) if alone else 3 * max(LENGTHS))


def test_roberta_scores_equal_transformers(tmp_path: Path) -> None:
    model = checks.tiny_model(tmp_path, "roberta")
    batch = checks.tiny_batch(LENGTHS, types=False)
    scores = load(model).infer(batch).values
    np.testing.assert_allclose(scores, checks.reference(model, batch), atol=1e-4, rtol=0)


@pytest.mark.parametrize("quant", [Quant.FP16, Quant.BF16])
def test_half_precisions_are_really_used(tiny: ModelFolder, quant: Quant) -> None:
    batch = checks.tiny_batch((7, 16, 3, 9, 22, 12, 5, 30))
    exact = checks.reference(tiny, batch)
    torch_half = PyTorchBackend("pytorch", Deployment(tiny, quant, "cpu", 2, Path()))
    torch_half.load_model()
    allowed = HALF_FACTOR * np.abs(torch_half.infer(batch).values - exact).max()
    full, half = load(tiny), load(tiny, quant)
    assert 1e-3 < np.abs(half.infer(batch).values - exact).max() < allowed
    head = 4 * (64 * 64 + 64 + 64 + 1)
    encoder = (full.stored["float32"] - head) // 2
    assert half.stored == {STORED_TYPE[quant]: encoder, "float32": head}


@pytest.mark.parametrize("quant", BITS)
def test_quantised_weights_are_really_used(
    tiny: ModelFolder, batch: TokenBatch, quant: Quant
) -> None:
    full, backend = load(tiny), load(tiny, quant)
    scores = backend.infer(batch).values
    expected = scores_of_rounded_weights(tiny, batch, BITS[quant], backend.group_size)
    tolerance = ROUNDED_TOLERANCE[backend.device]
    np.testing.assert_allclose(scores, expected, atol=tolerance, rtol=0)
    assert np.abs(scores - full.infer(batch).values).max() > 1e-2
    assert backend.stored["uint32"] == QUANTISED * BITS[quant] // 8
    assert sum(backend.stored.values()) < 0.5 * sum(full.stored.values())


def test_quantised_weights_with_fp16_activations(tiny: ModelFolder, batch: TokenBatch) -> None:
    """This is what a GPU computes at int8; a CPU uses fp32 activations."""
    require_mlx()
    import mlx.core as mx

    engine = _Engine(mx, mx.default_device())
    stored = engine.load(read_weights(tiny), mx.float16, bits=8, group_size=32, cls_only=True)
    scores = engine.scores([batch.padded(tiny.pad_id)])[0]
    engine.close()
    expected = scores_of_rounded_weights(tiny, batch, bits=8, group_size=32)
    np.testing.assert_allclose(scores, expected, atol=ROUNDED_TOLERANCE["mps"], rtol=0)
    assert stored["uint32"] == QUANTISED
    assert stored["float16"] > 2 * 2 * QUANTISED // 32  # one scale and one offset per group


def scores_of_rounded_weights(
    model: ModelFolder, batch: TokenBatch, bits: int, group_size: int
) -> Float32Array:
    """Return the fp32 encoder's scores on weights that were quantised and dequantised."""
    import mlx.core as mx

    def rounded(array: Float32Array) -> Float32Array:
        packed = mx.quantize(mx.array(array), group_size, bits)
        dequantised: Float32Array = np.array(mx.dequantize(*packed, group_size, bits))
        return dequantised

    def rounded_linear(linear: Linear) -> Linear:
        return Linear(rounded(linear.weight), linear.bias)

    weights = read_weights(model)
    layers = tuple(
        replace(
            layer,
            qkv=rounded_linear(layer.qkv),
            attention_out=rounded_linear(layer.attention_out),
            up=rounded_linear(layer.up),
            down=rounded_linear(layer.down),
        )
        for layer in weights.layers
    )
    weights = replace(weights, word_embeddings=rounded(weights.word_embeddings), layers=layers)
    engine = _Engine(mx, mx.default_device())
    engine.load(weights, mx.float32, bits=None, group_size=group_size, cls_only=False)
    scores = engine.scores([batch.padded(model.pad_id)])[0]
    engine.close()
    return scores


def test_any_thread_may_call_infer_and_a_closed_backend_loads_again(
    tiny: ModelFolder, batch: TokenBatch
) -> None:
    backend = load(tiny)
    backend.warmup([4, 8])
    expected = backend.infer(batch).values
    with ThreadPoolExecutor(3) as threads:
        for inference in threads.map(backend.infer, [batch] * 6):
            np.testing.assert_array_equal(inference.values, expected)
    backend.close()
    backend.load_model()
    np.testing.assert_array_equal(backend.infer(batch).values, expected)


def test_memory_is_reported_for_a_gpu_only(tiny: ModelFolder, batch: TokenBatch) -> None:
    backend = load(tiny, Quant.FP16)
    backend.infer(batch)
    memory = backend.memory()
    if backend.device == "cpu":
        assert memory.current_mb is None
        assert memory.peak_mb is None
    else:
        assert memory.peak_mb >= memory.current_mb >= sum(backend.stored.values()) / 1e6


def test_error_for_a_missing_library_says_how_to_install_it(
    tiny: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("mlx", "mlx.core"):
        monkeypatch.setitem(sys.modules, name, None)  # makes the import fail
    with pytest.raises(BackendUnavailable, match=r"pip install 'crossbench\[mlx\]'") as raised:
        make(tiny).load_model()
    assert ("CPU only and very slowly" in str(raised.value)) == (sys.platform == "linux")


def test_unsupported_devices_are_refused(tiny: ModelFolder) -> None:
    with pytest.raises(UnsupportedDevice, match="not on device=cuda"):
        make(tiny, device="cuda").load_model()
    require_mlx()
    import mlx.core as mx

    if not mx.metal.is_available():
        with pytest.raises(BackendUnavailable, match="sees no Metal GPU"):
            make(tiny, device="mps").load_model()


def test_group_sizes_that_do_not_fit_are_refused(tiny: ModelFolder) -> None:
    with pytest.raises(ConfigError, match="give 32 or 64 or 128"):
        make(tiny, group_size=48)
    with pytest.raises(ConfigError, match="does not divide hidden_size=64 of tiny: give 32 or 64"):
        load(tiny, Quant.INT4, group_size=128)
    load(tiny, Quant.FP16, group_size=128)
