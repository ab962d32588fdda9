"""Compare every available backend and precision with sentence-transformers at fp32.

Each test checks two things. The scores equal the library's fp32 scores within the tolerance of the
precision. And the engine really computes in this precision, as its own report or the types and
bytes of its weights show: a silent fallback to fp32 fails. A backend that this machine cannot run
is skipped with the doctor's message.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra.utils import get_class
from omegaconf import OmegaConf
from sentence_transformers import CrossEncoder

from crossbench.backends.availability import Ready, Unavailable, availability
from crossbench.models.tokenizer import PairTokenizer
from crossbench.types import Float32Array, Quant
from tests.helpers import engine_checks as checks

# Largest allowed difference of a score; the scores of these pairs have a standard deviation of
# about 1. fp32 differs only by the order of summation. fp16 has 11 significant bits and bf16 8, and
# rounding errors add up over 6 layers: the largest observed errors were 0.002 and 0.008. int8 has
# steps of 1/255 of a range, and a scale shared by many inputs costs most: observed were 0.01 to
# 0.14, and 0.23 where a whole batch shares a 7-bit scale (pytorch without VNNI). int4 has steps of
# 1/15 of a group's range: observed was 0.11. The tolerances are two to ten times the observed
# errors, to allow for the kernels of other machines.
TOLERANCE = {Quant.FP32: 1e-4, Quant.FP16: 0.02, Quant.BF16: 0.05, Quant.INT8: 0.5, Quant.INT4: 0.5}
MIN_ROUNDING_ERROR = 2e-5  # any precision but fp32 must differ by at least this much
# Size of the weights relative to fp32. Some engines leave embeddings, half of this small model, in
# fp32 at int8; mlx quantises them too, with a scale and an offset per group.
SIZE_RATIOS = {
    Quant.FP32: (0.95, 1.15),
    Quant.FP16: (0.49, 0.55),
    Quant.BF16: (0.49, 0.55),
    Quant.INT8: (0.24, 0.70),
    Quant.INT4: (0.12, 0.20),
}
TORCH = {Quant.FP32: "torch.float32", Quant.FP16: "torch.float16", Quant.BF16: "torch.bfloat16"}
MLX_CPU_PAIRS = 2  # mlx is very slow on a CPU


def targets() -> dict[str, Any]:
    files = sorted((checks.ROOT / "conf/backend").glob("*.yaml"))
    return {file.stem: get_class(OmegaConf.load(file)["_target_"]) for file in files}


CELLS = [
    pytest.param(name, backend, quant, id=f"{name}-{quant.value}")
    for name, backend in targets().items()
    if name != "noop"  # it runs no model
    for quant in backend.supported
]


def weights_of_library(engine: Any, quant: Quant, cache_dir: Path) -> None:
    from crossbench.models.dynamic_int8 import DynamicInt8Linear

    if quant is Quant.INT8:
        kinds = {type(module).__name__ for module in engine._model.modules()}
        assert "Linear" not in kinds
        stored = [m.weight for m in engine._model.modules() if isinstance(m, DynamicInt8Linear)]
        assert {str(weight.dtype) for weight in stored} == {"torch.qint8"}
    else:
        assert {str(weight.dtype) for weight in engine._model.parameters()} == {TORCH[quant]}


def weights_of_our_encoder(engine: Any, quant: Quant, cache_dir: Path) -> None:
    assert str(engine._encoder._word_embeddings.dtype) == TORCH[quant]


def kernels_of_openvino(engine: Any, quant: Quant, cache_dir: Path) -> None:
    wanted = {Quant.FP32: "f32", Quant.BF16: "bf16", Quant.INT8: "i8"}[quant]  # or `weights_i8`
    assert any(kernel.lower().endswith(wanted) for kernel in engine.precisions), engine.precisions


def nodes_of_onnx(engine: Any, quant: Quant, cache_dir: Path) -> None:
    import onnx

    (file,) = cache_dir.glob("onnx/*/encoder.onnx")
    graph = onnx.load(file, load_external_data=False).graph
    integer = [node for node in graph.node if "Integer" in node.op_type]
    stored = {tensor.data_type for tensor in graph.initializer}
    assert bool(integer) == (quant is Quant.INT8)
    assert (onnx.TensorProto.INT8 in stored) == (quant is Quant.INT8)


def arrays_of_mlx(engine: Any, quant: Quant, cache_dir: Path) -> None:
    names = {Quant.FP32: "float32", Quant.FP16: "float16", Quant.BF16: "bfloat16"}
    assert max(engine.stored, key=engine.stored.get) == names.get(quant, "uint32")


def lanes_of_cuda(engine: Any, quant: Quant, cache_dir: Path) -> None:
    (lane, *_) = engine._all_lanes
    rest = "torch.float16" if quant is Quant.INT8 else TORCH[quant]
    assert str(lane._encoder._word_embeddings.dtype) == rest  # the size ratio below proves int8


PRECISION_CHECKS: dict[str, Callable[[Any, Quant, Path], None]] = {
    "pytorch": weights_of_library,
    "mps": weights_of_library,
    "packed": weights_of_our_encoder,
    "compiled": weights_of_our_encoder,
    "openvino": kernels_of_openvino,
    "onnx": nodes_of_onnx,
    "mlx": arrays_of_mlx,
    "cuda": lanes_of_cuda,
}


@cache
def library_logits() -> Float32Array:
    """Return the fp32 logits of sentence-transformers, computed one pair at a time."""
    from torch.nn import Identity

    encoder = CrossEncoder(str(checks.real_model().path), device="cpu")
    pairs = [(pair.query, pair.passage) for pair in checks.real_pairs()]
    logits = encoder.predict(pairs, batch_size=1, activation_fn=Identity())
    return np.asarray(logits, dtype=np.float32)


@pytest.mark.parametrize(("name", "backend", "quant"), CELLS)
def test_scores_and_precision(name: str, backend: Any, quant: Quant, tmp_path: Path) -> None:
    found = availability(backend, quant, "auto")
    if isinstance(found, Unavailable):
        pytest.skip(f"backend={name} quant={quant.value}: {found}")
    assert isinstance(found, Ready)
    model = checks.real_model()
    batch = PairTokenizer(model).encode_pairs(checks.real_pairs()).batch
    expected = library_logits()
    assert expected.std() > 0.5
    if name == "mlx" and found.device == "cpu":
        batch = checks.pick(batch, *range(MLX_CPU_PAIRS))
        expected = expected[:MLX_CPU_PAIRS]
    engine: Any = checks.backend(name, model, quant.value, tmp_path, device=found.device)
    try:
        errors = np.abs(engine.infer(batch).values - expected)
        print(f"{name} {quant.value}: {errors.max():.2g}, {engine.memory().model_mb}")
        assert errors.max() < TOLERANCE[quant]
        assert errors.max() > (0 if quant is Quant.FP32 else MIN_ROUNDING_ERROR)
        PRECISION_CHECKS[name](engine, quant, tmp_path)
        fp32_mb = (model.path / "model.safetensors").stat().st_size / 1e6
        # OpenVINO's own list of constants has those of a bf16 model in fp32
        stored = Quant.FP32 if (name, quant) == ("openvino", Quant.BF16) else quant
        least, most = SIZE_RATIOS[stored]
        assert least < engine.memory().model_mb / fp32_mb < most
    finally:
        engine.close()


def test_every_backend_has_a_precision_check() -> None:
    assert PRECISION_CHECKS.keys() == targets().keys() - {"noop"}
