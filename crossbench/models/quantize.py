"""Int8 quantisation of the encoder's linear layers.

Activations have one scale per linear layer, fixed by calibration, or one per token, computed at run
time. Both make a score independent of its batch, which a scale per batch would not. SmoothQuant
moves the differences between channels from the activations, which share a scale, to the weights,
which have one scale per output row.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from crossbench.models.weights import EncoderWeights, Linear
from crossbench.types import Float32Array, TokenBatch

# Without VNNI, a CPU uses vpmaddubsw, which adds two u8 x s8 products in 16 bits. That saturates
# unless weights have only 7 bits: 2 * 255 * 63 < 2**15.
FULL_WEIGHT_LEVEL, SAFE_WEIGHT_LEVEL = 127, 63


@dataclass(frozen=True)
class Observed:
    """Statistics of the inputs of one linear layer during calibration.

    `low`, `high` and `mean` (in,) are the minimum, maximum and mean of each channel.
    """

    low: Float32Array
    high: Float32Array
    mean: Float32Array


@dataclass(frozen=True)
class Int8Linear:
    """A linear layer that multiplies in int8.

    Its input, `smooth * x`, is quantised to u8 over the range [low, high]; `smooth` is (in,) or
    None. `weight` is int8 (out, in) and represents `weight * weight_scale`; `weight_scale` is
    (out, 1). With `per_token`, each token's own largest value replaces the calibrated range.
    """

    weight: np.ndarray[tuple[int, int], np.dtype[np.int8]]
    weight_scale: Float32Array
    bias: Float32Array
    low: float
    high: float
    smooth: Float32Array | None
    per_token: bool

    @property
    def input_scale(self) -> float:
        return (self.high - self.low) / 255

    @property
    def zero_point(self) -> int:
        return round(-self.low / self.input_scale)


@dataclass(frozen=True)
class Int8Weight:
    """A linear layer that multiplies in fp32 and stores its weight in int8.

    The weight is `weight` (out, in) times `scale` (out, 1).
    """

    weight: np.ndarray[tuple[int, int], np.dtype[np.int8]]
    scale: Float32Array
    bias: Float32Array


Plan = Mapping[str, Int8Linear]
# The last layer has key_value instead of qkv if the head reads only the CLS rows
KINDS = frozenset({"qkv", "key_value", "attention_out", "up", "down"})


def products(weights: EncoderWeights) -> dict[str, Linear]:
    """Return the linear layers that int8 can speed up, by name: those that process every token.

    In the last layer, these are only the keys and values if the head reads only the CLS rows.
    """
    named: dict[str, Linear] = {}
    full = weights.layers[:-1] if weights.reads_cls else weights.layers
    for index, layer in enumerate(full):
        named[f"{index}.qkv"] = layer.qkv
        named[f"{index}.attention_out"] = layer.attention_out
        named[f"{index}.up"] = layer.up
        named[f"{index}.down"] = layer.down
    if not weights.reads_cls:
        return named
    last = weights.layers[-1].qkv.rows(weights.hidden, 3 * weights.hidden)
    return {**named, f"{len(weights.layers) - 1}.key_value": last}


def kind(name: str) -> str:
    """Return the kind of a linear layer, for example `down` for `3.down`."""
    return name.split(".")[1]


def observe(weights: EncoderWeights, batches: Sequence[TokenBatch]) -> dict[str, Observed]:
    """Run the encoder in fp32 on `batches` and record statistics of its linear layers' inputs."""
    import torch
    from torch import Tensor

    from crossbench.models.encoder import PackedEncoder, Projection, plain_linear

    records: dict[str, list[Tensor]] = {}

    def recording(name: str, weight: Tensor, bias: Tensor) -> Projection:
        project = plain_linear(name, weight, bias)

        def record(x: Tensor) -> Tensor:
            records.setdefault(name, []).append(torch.stack([x.amin(0), x.amax(0), x.mean(0)]))
            return project(x)

        return record

    encoder = PackedEncoder(
        weights,
        dtype=torch.float32,
        device=torch.device("cpu"),
        cls_only=True,
        linear=recording,
        group_overhead=0.0,
    )
    with torch.inference_mode():
        for batch in batches:
            encoder.values(batch.ascending()[0])
    result = {}
    for name, batch_records in records.items():
        rows = torch.stack(batch_records)
        result[name] = Observed(
            rows[:, 0].amin(0).numpy(), rows[:, 1].amax(0).numpy(), rows[:, 2].mean(0).numpy()
        )
    return result


def plan(
    weights: EncoderWeights,
    observed: Mapping[str, Observed],
    *,
    names: Sequence[str],
    token_scales: Collection[str],
    alpha: Mapping[str, float],
    level: int,
) -> Plan:
    """Quantise the linear layers in `names` to int8 weights in [-level, level].

    Linear layers in `token_scales` use one activation scale per token, the others a calibrated one.
    `alpha` maps kinds of linear layers ("up", "down", …) to SmoothQuant's migration strength (0 to
    1): how much of the differences between channels moves from the activations to the weights.
    Kinds that it does not contain are not smoothed.
    """
    named = products(weights)
    return {
        name: quantize_linear(
            named[name], observed[name], name in token_scales, alpha.get(kind(name)), level
        )
        for name in names
    }


def weight_plan(weights: EncoderWeights, names: Sequence[str]) -> Mapping[str, Int8Weight]:
    """Quantise only the weights of the linear layers in `names`, which needs no calibration."""
    named, quantised = products(weights), {}
    for name in names:
        linear = named[name]
        rounded, scale = _rounded(linear.weight, FULL_WEIGHT_LEVEL)
        quantised[name] = Int8Weight(rounded.astype(np.int8), scale.astype(np.float32), linear.bias)
    return quantised


def _rounded(weight: Float32Array, level: int) -> tuple[Float32Array, Float32Array]:
    """Return integers in [-level, level] (as float32) and the scale of each row, (out, 1)."""
    scale = np.maximum(np.abs(weight).max(1, keepdims=True), 1e-12) / level
    return np.clip(np.rint(weight / scale), -level, level), scale


def quantize_linear(
    linear: Linear, observed: Observed, per_token: bool, alpha: float | None, level: int
) -> Int8Linear:
    """Quantise one linear layer to int8; see `plan`."""
    weight, smooth = linear.weight, None
    low, high = observed.low, observed.high
    if alpha is not None:
        largest_input = np.maximum(np.maximum(np.abs(low), np.abs(high)), 1e-5)
        largest_weight = np.maximum(np.abs(weight).max(0), 1e-5)
        factor = largest_input**alpha / largest_weight ** (1 - alpha)
        factor /= np.exp(np.mean(np.log(factor)))
        weight, smooth = weight * factor, (1 / factor).astype(np.float32)
        low, high = low / factor, high / factor
    rounded, scale = _rounded(weight, level)
    # Zero must be represented exactly, because it is the most common activation
    lowest, highest = min(float(low.min()), 0.0), max(float(high.max()), 1e-6)
    step = (highest - lowest) / 255
    zero = round(-lowest / step)
    # The mean error of rounding the weights is known, so the bias corrects it
    mean = observed.mean if smooth is None else observed.mean * smooth
    bias = linear.bias + (weight - rounded * scale) @ mean
    return Int8Linear(
        rounded.astype(np.int8),
        scale.astype(np.float32),
        bias.astype(np.float32),
        -zero * step,
        (255 - zero) * step,
        smooth,
        per_token,
    )
