"""Test `memory/model_mb`, the size of the weights, for every backend and precision."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.numpy import load_file
from torch import nn

from crossbench.backends.devices import stored_bytes
from crossbench.models.folder import ModelFolder
from crossbench.serving.process_engine import ProcessEngine
from tests.helpers.engine_checks import backend, tiny_batch, tiny_model
from tests.helpers.serving import noop, pytorch

# Size relative to fp32. At int8, onnx and openvino keep the embeddings, two fifths of the tiny
# model, in fp32; mlx stores a scale and an offset for every 64 weights.
RELATIVE_SIZES = [
    ("pytorch", "fp32", 1.0),
    ("pytorch", "bf16", 0.5),
    ("packed", "fp32", 1.0),
    ("openvino", "fp32", 1.0),
    ("openvino", "int8", 0.68),
    ("onnx", "fp32", 1.0),
    ("onnx", "int8", 0.7),
    ("mlx", "fp32", 1.0),
    ("mlx", "bf16", 0.5),
    ("mlx", "int8", 0.38),
    ("mlx", "int4", 0.28),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.mark.parametrize(("name", "quant", "relative_size"), RELATIVE_SIZES)
def test_the_size_of_the_weights_matches_the_precision(
    name: str, quant: str, relative_size: float, model: ModelFolder, cache_dir: Path
) -> None:
    optional = {"openvino": "openvino", "onnx": "onnxruntime", "mlx": "mlx.core"}
    if name in optional:
        pytest.importorskip(optional[name])
    weights = load_file(model.path / "model.safetensors").values()
    expected_mb = relative_size * sum(tensor.nbytes for tensor in weights) / 1e6
    engine = backend(name, model, quant, cache_dir)
    assert engine.memory().model_mb == pytest.approx(expected_mb, rel=0.05)  # type: ignore[attr-defined]
    engine.close()  # type: ignore[attr-defined]
    assert engine.memory().model_mb is None  # type: ignore[attr-defined]


@pytest.mark.filterwarnings("ignore:.*deprecated")
def test_stored_bytes_counts_packed_weights_and_counts_shared_weights_once() -> None:
    linear = nn.Linear(256, 128)
    tied = nn.Linear(256, 128)
    tied.weight = linear.weight
    assert stored_bytes(nn.Sequential(linear, tied)) == 4 * (256 * 128 + 2 * 128)
    made = torch.ao.quantization.quantize_dynamic(nn.Sequential(linear), {nn.Linear})
    assert stored_bytes(made) == pytest.approx(256 * 128 + 4 * 128, rel=0.01)


@pytest.mark.slow
def test_a_worker_process_reports_its_model_size(model: ModelFolder, cache_dir: Path) -> None:
    engine = ProcessEngine(pytorch(model, cache_dir))
    engine.backend.close()
    engine.load_model()
    try:
        before = engine.memory().model_mb
        engine.infer(tiny_batch())
        assert before is not None
        assert engine.memory().model_mb == before
    finally:
        engine.close()


def test_noop_reports_no_model_size(model: ModelFolder) -> None:
    assert noop(model).memory().model_mb is None
