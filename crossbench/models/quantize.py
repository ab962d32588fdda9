"""Int8 for the encoder's matrix products: how activations and weights are scaled.

Activations get one scale per product, fixed by calibration, or one per token, computed as the model
runs: either way a score depends on its own pair only, where scales taken from a whole batch would
let its neighbours in. SmoothQuant moves the
spread between channels from the activations, which share a scale, into the weights, which have
one per output row.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from crossbench.models.weights import EncoderWeights, Linear
from crossbench.types import Float32Array, TokenBatch

# vpmaddubsw adds two products of u8 and s8 into 16 bits. Where a CPU lacks VNNI that saturates
# unless weights keep to 7 bits: 2 * 255 * 63 < 2**15.
FULL_WEIGHT_LEVEL, SAFE_WEIGHT_LEVEL = 127, 63


@dataclass(frozen=True)
class Observed:
    """What calibration saw at the input of one product.

    `low` and `high` (in,) are each channel's extremes; `mean` (in,) its average.
    """

    low: Float32Array
    high: Float32Array
    mean: Float32Array


@dataclass(frozen=True)
class Int8Linear:
    """A product in int8: `(smooth * x)` quantised to u8 in [low, high], weights s8.

    `weight` is int8 (out, in) and stands for `weight * weight_scale`, with `weight_scale` (out, 1).
    `smooth` (in,) multiplies the input before it is quantised, or is None. With `per_token` a
    token's own largest value takes the place of the calibrated range.
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
    """A product in fp32 whose weight is kept in int8: `weight` (out, in) times `scale` (out, 1)."""

    weight: np.ndarray[tuple[int, int], np.dtype[np.int8]]
    scale: Float32Array
    bias: Float32Array


Plan = Mapping[str, Int8Linear]
# A model's last layer has a key_value where its head reads CLS rows only, and a qkv where not.
KINDS = frozenset({"qkv", "key_value", "attention_out", "up", "down"})


def products(weights: EncoderWeights) -> dict[str, Linear]:
    """The products that int8 pays for, by name: all that run over every token.

    Of the last layer that is the keys and values alone where the head reads CLS rows only.
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
    """The kind of a product: `down` of `3.down`."""
    return name.split(".")[1]


def observe(weights: EncoderWeights, batches: Sequence[TokenBatch]) -> dict[str, Observed]:
    """Run the encoder in fp32 over `batches` and record the inputs of its products."""
    import torch
    from torch import Tensor

    from crossbench.models.encoder import PackedEncoder, Projection, plain_linear

    seen: dict[str, list[Tensor]] = {}

    def recording(name: str, weight: Tensor, bias: Tensor) -> Projection:
        project = plain_linear(name, weight, bias)

        def record(x: Tensor) -> Tensor:
            seen.setdefault(name, []).append(torch.stack([x.amin(0), x.amax(0), x.mean(0)]))
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
    for name, records in seen.items():
        rows = torch.stack(records)
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
    """Quantise the products in `names` to weights in [-level, level].

    Products in `token_scales` take each token's own scale, the others the calibrated one.
    `alpha` gives SmoothQuant's strength per kind of product ("up", "down", …): how much of the
    activations' spread between channels moves into the weights (0 to 1); a kind that it does not
    name is not smoothed.
    """
    named = products(weights)
    return {
        name: quantize_linear(
            named[name], observed[name], name in token_scales, alpha.get(kind(name)), level
        )
        for name in names
    }


def weight_plan(weights: EncoderWeights, names: Sequence[str]) -> Mapping[str, Int8Weight]:
    """The products in `names` with their weights alone in int8: nothing to calibrate."""
    named, made = products(weights), {}
    for name in names:
        rounded, scale = _rounded(named[name].weight, FULL_WEIGHT_LEVEL)
        made[name] = Int8Weight(rounded.astype(np.int8), scale.astype(np.float32), named[name].bias)
    return made


def _rounded(weight: Float32Array, level: int) -> tuple[Float32Array, Float32Array]:
    """Whole numbers in [-level, level] and the scale of each row, (out, 1)."""
    scale = np.maximum(np.abs(weight).max(1, keepdims=True), 1e-12) / level
    return np.clip(np.rint(weight / scale), -level, level), scale


def quantize_linear(
    linear: Linear, observed: Observed, per_token: bool, alpha: float | None, level: int
) -> Int8Linear:
    """One product in int8; see `plan`."""
    weight, smooth = linear.weight, None
    low, high = observed.low, observed.high
    if alpha is not None:
        spread = np.maximum(np.maximum(np.abs(low), np.abs(high)), 1e-5)
        reach = np.maximum(np.abs(weight).max(0), 1e-5)
        factor = spread**alpha / reach ** (1 - alpha)
        factor /= np.exp(np.mean(np.log(factor)))
        weight, smooth = weight * factor, (1 / factor).astype(np.float32)
        low, high = low / factor, high / factor
    rounded, scale = _rounded(weight, level)
    # Zero must be exact, since padding and cut-off activations are full of it.
    lowest, highest = min(float(low.min()), 0.0), max(float(high.max()), 1e-6)
    step = (highest - lowest) / 255
    zero = round(-lowest / step)
    # What rounding the weights adds on average is known, so it goes into the bias.
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
