"""The part of a layer after attention, fused by torch.compile; all layers share its graphs.

The weights are arguments of the graph and the number of rows is dynamic, so the graph is compiled
only once, not once per layer.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 (the name everybody knows it by)
from torch import Tensor

from crossbench.models.encoder import MakeProjection, Rest, ToTensor, plain_linear
from crossbench.models.weights import Layer

Weights = tuple[Tensor, ...]
Graph = Callable[..., Tensor]


def after_attention(x: Tensor, context: Tensor, weights: Weights, eps: float) -> Tensor:
    """Compute output projection, feed-forward and both norms: (rows, hidden) to (rows, hidden)."""
    out_w, out_b, norm1_w, norm1_b, up_w, up_b, down_w, down_b, norm2_w, norm2_b = weights
    width = (x.shape[-1],)
    x = F.layer_norm(F.linear(context, out_w, out_b) + x, width, norm1_w, norm1_b, eps)
    wide = F.gelu(F.linear(x, up_w, up_b))
    return F.layer_norm(F.linear(wide, down_w, down_b) + x, width, norm2_w, norm2_b, eps)


def add_norm(x: Tensor, y: Tensor, scale: Tensor, shift: Tensor, eps: float) -> Tensor:
    """Return the layer norm of a sum, (rows, hidden)."""
    return F.layer_norm(x + y, (x.shape[-1],), scale, shift, eps)


class Fused:
    """Creates the feed-forward parts of an encoder, which share a few compiled graphs.

    `mode` is passed to torch.compile. With PyTorch's own linear layers, the whole part is one
    graph. Other linear layers (oneDNN's with packed weights) cannot be in a graph, so only the
    operations between them are fused.
    """

    def __init__(self, mode: str) -> None:
        def compiled(function: Graph) -> Graph:
            return torch.compile(function, mode=mode, dynamic=True, fullgraph=True)

        self._whole = compiled(after_attention)
        self._gelu = compiled(F.gelu)
        self._add_norm = compiled(add_norm)

    def make(
        self, index: int, layer: Layer, tensor: ToTensor, linear: MakeProjection, eps: float
    ) -> Rest:
        """Create one layer's part; this method is a MakeFeedForward."""
        linears = {"attention_out": layer.attention_out, "up": layer.up, "down": layer.down}
        weights = {name: (tensor(part.weight), tensor(part.bias)) for name, part in linears.items()}
        norm1, norm2 = (
            (tensor(norm.scale), tensor(norm.shift))
            for norm in (layer.attention_norm, layer.out_norm)
        )
        if linear is plain_linear:
            out, up, down = weights.values()
            flat = (*out, *norm1, *up, *down, *norm2)
            return lambda x, context: self._whole(x, context, flat, eps)
        project = {name: linear(f"{index}.{name}", *pair) for name, pair in weights.items()}

        def rest(x: Tensor, context: Tensor) -> Tensor:
            x = self._add_norm(project["attention_out"](context), x, *norm1, eps)
            wide = self._gelu(project["up"](x))
            return self._add_norm(project["down"](wide), x, *norm2, eps)

        return rest
