"""Tests of backend=cuda: its shared parts on any machine, the backend itself on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (the name everybody knows it by)
from torch import Tensor

from crossbench.backends.cuda import build_encoder, varlen_kernel
from crossbench.errors import BackendUnavailable, ConfigError
from crossbench.models.folder import ModelFolder
from crossbench.models.int8_linear import MakeInt8
from crossbench.models.token_buckets import Bucket, exact, ladder, pack, smallest, unpack
from crossbench.models.weights import read_weights
from crossbench.settings.component import Component
from crossbench.settings.plan import replica_devices
from crossbench.types import Float32Array, Quant, TokenBatch
from tests.helpers import engine_checks as checks

CPU = torch.device("cpu")
# The real model's scores have a standard deviation of about 1
REAL_INT8_TOLERANCE = 0.1
# Relative to the scores' standard deviation. The tiny model's large weights amplify rounding
# errors as much as a model can, so int8 errors exceed the standard deviation.
RELATIVE_TOLERANCE = {"fp32": 0.0, "fp16": 0.05, "bf16": 0.3, "int8": 2.0}


def needs_gpu(test: Callable[..., None]) -> Any:
    absent = not torch.cuda.is_available()
    return pytest.mark.cuda(pytest.mark.skipif(absent, reason="PyTorch sees no CUDA GPU")(test))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return checks.tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def batch() -> TokenBatch:
    unsorted = checks.tiny_batch()
    return unsorted.select(np.argsort(unsorted.lengths, kind="stable"))


def loop_kernel(
    q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, max_q: int, max_k: int
) -> Tensor:
    """Compute what a variable-length kernel does, in a loop; rows of no sequence are NaN."""
    out = torch.full_like(q, float("nan"))
    for a, b, c, d in zip(cu_q[:-1], cu_q[1:], cu_k[:-1], cu_k[1:], strict=True):
        assert b - a <= max_q
        assert d - c <= max_k
        if d > c:
            parts = (q[a:b], k[c:d], v[c:d])
            rows = (part.transpose(0, 1) for part in parts)
            out[a:b] = F.scaled_dot_product_attention(*rows).transpose(0, 1)
    return out


def scores_in(
    bucket: Bucket, batch: TokenBatch, model: ModelFolder, quant: Quant, cls_only: bool
) -> Float32Array:
    """Compute scores as a lane does, but with a loop instead of the kernel, and without streams."""
    weights = read_weights(model)
    encoder, _ = build_encoder(weights, quant, CPU, cls_only, 0.0)
    numbers = np.full(bucket.numbers, 7, dtype=np.int32)  # stale values of an earlier batch
    pack(batch, bucket, numbers, weights.skipped_id)
    with torch.inference_mode():
        inputs = unpack(torch.from_numpy(numbers), bucket, loop_kernel, weights.heads)
        scores: Float32Array = encoder.run(inputs).numpy()
    return scores


@pytest.mark.parametrize("cls_only", [True, False])
@pytest.mark.parametrize("room", ["exact", "spare", "full"])
def test_scores_equal_transformers(
    tiny: ModelFolder, batch: TokenBatch, cls_only: bool, room: str
) -> None:
    buckets = {
        "exact": exact(batch),
        "spare": Bucket(batch.total_tokens + 40, len(batch) + 6, 128),
        "full": Bucket(batch.total_tokens, len(batch) + 1, 128),  # an empty sequence at the end
    }
    scores = scores_in(buckets[room], batch, tiny, Quant.FP32, cls_only)
    expected = checks.reference(tiny, batch)
    np.testing.assert_allclose(scores[: len(batch)], expected, atol=1e-4)


def test_int8_scores_of_the_real_model_are_close() -> None:
    """Four pairs only: int8 products are slow on a CPU without int8 instructions."""
    model, batch = checks.real_model(), checks.real_batch()
    batch = checks.pick(batch, *np.argsort(batch.lengths, kind="stable")[:4])
    expected = checks.reference(model, batch)
    scores = scores_in(Bucket(512, 8, 512), batch, model, Quant.INT8, cls_only=True)
    error = np.abs(scores[: len(batch)] - expected).max()
    assert 1e-4 < error < REAL_INT8_TOLERANCE


def test_an_int8_weight_takes_one_byte(tiny: ModelFolder) -> None:
    weights = read_weights(tiny)
    full = build_encoder(weights, Quant.FP32, CPU, True, 0.0)[1]
    small = build_encoder(weights, Quant.INT8, CPU, True, 0.0)[1]
    products = sum(
        part.weight.size
        for layer in weights.layers
        for part in (layer.qkv, layer.attention_out, layer.up, layer.down)
    )
    assert full - small == pytest.approx(3 * products, rel=0.05)  # the scales take a few bytes


def test_the_error_of_int8_is_within_the_rounding_of_its_scales() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5, 64, generator=generator) * torch.tensor([[1], [10], [0.1], [0], [100.0]])
    weight, bias = torch.randn(48, 64, generator=generator), torch.randn(48, generator=generator)
    make = MakeInt8()
    linear = make("0.up", weight, bias)
    assert linear.weight.dtype == torch.int8
    assert make.saved_bytes == 48 * 64 * 3 - 48 * 4
    exact_product = F.linear(x, weight, bias)
    # Rounding is at most half a step of the token's and of the weight row's scale
    steps = x.abs().amax(1, keepdim=True) / 127, weight.abs().amax(1) / 127
    bound = steps[0] / 2 * weight.abs().sum(1) + steps[1] / 2 * x.abs().sum(1, keepdim=True)
    assert ((linear(x) - exact_product).abs() <= bound + 64 * steps[0] * steps[1] + 1e-4).all()
    alone = torch.cat([linear(row[None]) for row in x])
    torch.testing.assert_close(alone, linear(x), rtol=0, atol=0)  # independent of the other rows


def test_the_smallest_bucket_that_holds_a_batch_is_chosen(batch: TokenBatch) -> None:
    buckets = ladder(1024, 512)
    assert [bucket.tokens for bucket in buckets] == [128, 192, 256, 384, 512, 768, 1024]
    chosen = smallest(buckets, batch)
    assert chosen is not None
    assert chosen.tokens == 256
    assert batch.total_tokens == 240
    many_short = checks.tiny_batch((3,) * 20)  # 60 tokens, but smaller buckets hold < 20 sequences
    found = smallest(buckets, many_short)
    assert found is not None
    assert found.tokens == 384
    assert smallest(buckets[:1], batch) is None
    assert ladder(0, 512) == []


def test_replicas_are_assigned_to_the_devices_in_turn() -> None:
    assert replica_devices(None, "auto") == ("auto",)
    assert replica_devices([0, 1], "cuda") == ("cuda:0", "cuda:1")
    pool = Component.choice("pool", "threads").build()
    assert pool.resolve(cores=8, models=1, devices=2) == (2, 4)
    for wrong in ([], [0, 0], ["a"], 3, [True]):
        with pytest.raises(ConfigError, match=r"backend\.devices must be"):
            replica_devices(wrong, "auto")
    with pytest.raises(ConfigError, match="contradict each other"):
        replica_devices([0, 1], "cuda:1")


def test_error_for_a_missing_kernel_says_how_to_install_it() -> None:
    assert varlen_kernel("grouped") is None
    pytest.importorskip("torch.nn.attention.varlen")
    assert varlen_kernel("auto") is varlen_kernel("torch")
    with pytest.raises(BackendUnavailable, match="pip install flash-attn"):
        varlen_kernel("flash_attn")


@needs_gpu
@pytest.mark.parametrize("quant", ["fp32", "fp16", "bf16", "int8"])
@pytest.mark.parametrize("options", [{}, {"graph_tokens": 0}, {"attention": "grouped"}], ids=str)
def test_gpu_scores_equal_transformers(
    tiny: ModelFolder, tmp_path: Path, quant: str, options: dict[str, object]
) -> None:
    """With and without CUDA graphs, and with the kernel and grouped attention."""
    batch = checks.tiny_batch()
    engine: Any = checks.backend("cuda", tiny, quant, tmp_path, device="cuda", **options)
    engine.warmup([8, 16])
    expected = checks.reference(tiny, batch)
    spread = float(expected.std())
    tolerance = RELATIVE_TOLERANCE[quant]
    for _ in range(3):  # use both lanes, and a buffer with stale values
        scores = engine.infer(batch).values
        assert np.abs(scores - expected).max() < max(1e-4, tolerance * spread)
        engine.infer(checks.tiny_batch((5, 9)))
    memory = engine.memory()
    assert memory.peak_mb >= memory.current_mb >= memory.model_mb > 0
