"""What follows attention in a layer, fused by torch.compile: one graph serves every layer.

The weights are arguments of the graph, so that it is compiled once per kind of shape and not once
per layer; the number of rows is dynamic.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 (the name everybody knows it by)
from torch import Tensor

from crossbench.models.encoder import MakeProjection, Rest, ToTensor
from crossbench.models.weights import Layer, Linear, Norm

Weights = tuple[Tensor, ...]


def after_attention(x: Tensor, context: Tensor, weights: Weights, eps: float) -> Tensor:
    """Output projection, feed-forward and both norms: (rows, hidden) to (rows, hidden)."""
    out_w, out_b, norm1_w, norm1_b, up_w, up_b, down_w, down_b, norm2_w, norm2_b = weights
    width = (x.shape[-1],)
    x = F.layer_norm(F.linear(context, out_w, out_b) + x, width, norm1_w, norm1_b, eps)
    wide = F.gelu(F.linear(x, up_w, up_b))
    return F.layer_norm(F.linear(wide, down_w, down_b) + x, width, norm2_w, norm2_b, eps)


class Fused:
    """Makes the feed-forward parts of an encoder, all on one compiled graph.

    `mode` is torch.compile's.
    """

    def __init__(self, mode: str) -> None:
        self._compiled: Callable[..., Tensor] = torch.compile(
            after_attention, mode=mode, dynamic=True, fullgraph=True
        )

    def make(
        self, index: int, layer: Layer, tensor: ToTensor, linear: MakeProjection, eps: float
    ) -> Rest:
        """One layer's part; a MakeFeedForward of the encoder. `linear` is the graph's affair."""

        def weights_of(part: Linear | Norm) -> Weights:
            if isinstance(part, Norm):
                return tensor(part.scale), tensor(part.shift)
            return tensor(part.weight), tensor(part.bias)

        parts = (layer.attention_out, layer.attention_norm, layer.up, layer.down, layer.out_norm)
        weights = tuple(value for part in parts for value in weights_of(part))
        return lambda x, context: self._compiled(x, context, weights, eps)
