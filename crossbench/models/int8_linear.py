"""Int8 products in PyTorch: weights with a scale per output row, activations with one per token.

Both are symmetric, so that one integer product is all; each token's scale is its own, so a score
depends on its own pair only. CPU tensors and CUDA tensors take the same path through
`torch._int_mm` (on a GPU its tensor cores; on a CPU for tests).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 (the name everybody knows it by)
from torch import Tensor

_LEVEL = 127
_LEAST_ROWS = 32  # cuBLAS's int8 product wants more than 16


class Int8Linear:
    """`x @ weight.T + bias` of x (rows, in); `weight` is int8 (out, in), `scale` float32 (out,)."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        rows = weight.float()
        self.scale = rows.abs().amax(1).clamp(min=1e-12) / _LEVEL
        self.weight = torch.round(rows / self.scale[:, None]).to(torch.int8).contiguous()
        self.bias = bias.float()

    def __call__(self, x: Tensor) -> Tensor:
        step = x.abs().amax(1, keepdim=True).float().clamp_(min=1e-12) / _LEVEL
        whole = torch.round(x / step).to(torch.int8)
        count = len(whole)
        if count < _LEAST_ROWS:
            whole = F.pad(whole, (0, 0, 0, _LEAST_ROWS - count))
        sums = torch._int_mm(whole, self.weight.t())[:count]
        return torch.addcmul(self.bias, sums.float(), step * self.scale).to(x.dtype)

    @property
    def nbytes(self) -> int:
        return self.weight.nbytes + self.scale.nbytes + self.bias.nbytes


class MakeInt8:
    """Makes the encoder's products int8 (a MakeProjection); `made` keeps them by name.

    `saved_bytes` is how much less they take than the weights that they were made of.
    """

    def __init__(self) -> None:
        self.made: dict[str, Int8Linear] = {}
        self.saved_bytes = 0

    def __call__(self, name: str, weight: Tensor, bias: Tensor) -> Int8Linear:
        made = self.made[name] = Int8Linear(weight, bias)
        self.saved_bytes += weight.nbytes + bias.nbytes - made.nbytes
        return made
