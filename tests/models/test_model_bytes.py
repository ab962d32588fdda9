"""`memory/model_mb`: the bytes that every backend holds its weights in, by precision."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.numpy import load_file
from torch import nn

from crossbench.backends.devices import stored_bytes
from crossbench.backends.noop import NoopBackend
from crossbench.models.folder import ModelFolder
from crossbench.serving.process_engine import ProcessEngine
from tests.helpers.engine_checks import backend, tiny_batch, tiny_model
from tests.helpers.serving import deployment, pytorch

# Share of the fp32 weights. onnx and openvino keep the embeddings in fp32 at int8, which are two
# fifths of the tiny model; mlx keeps a scale and an offset for every 64 weights.
SHARES = [
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


@pytest.mark.parametrize(("name", "quant", "share"), SHARES)
def test_weights_take_what_their_precision_promises(
    name: str, quant: str, share: float, model: ModelFolder, cache_dir: Path
) -> None:
    optional = {"openvino": "openvino", "onnx": "onnxruntime", "mlx": "mlx.core"}
    if name in optional:
        pytest.importorskip(optional[name])
    weights = load_file(model.path / "model.safetensors").values()
    expected_mb = share * sum(tensor.nbytes for tensor in weights) / 1e6
    engine = backend(name, model, quant, cache_dir)
    assert engine.memory().model_mb == pytest.approx(expected_mb, rel=0.05)  # type: ignore[attr-defined]
    engine.close()  # type: ignore[attr-defined]
    assert engine.memory().model_mb is None  # type: ignore[attr-defined]


@pytest.mark.filterwarnings("ignore:.*deprecated")
def test_quantised_modules_count_their_packed_weights_and_shared_ones_count_once() -> None:
    linear = nn.Linear(256, 128)
    tied = nn.Linear(256, 128)
    tied.weight = linear.weight
    assert stored_bytes(nn.Sequential(linear, tied)) == 4 * (256 * 128 + 2 * 128)
    made = torch.ao.quantization.quantize_dynamic(nn.Sequential(linear), {nn.Linear})
    assert stored_bytes(made) == pytest.approx(256 * 128 + 4 * 128, rel=0.01)


def test_a_worker_process_tells_it_too(model: ModelFolder, cache_dir: Path) -> None:
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


def test_no_model_has_no_bytes(model: ModelFolder) -> None:
    assert NoopBackend("noop", deployment(model, Path())).memory().model_mb is None
