"""Int8 linear layers in PyTorch, with one scale per output row of weights and per token.

Both quantisations are symmetric, so a single integer matrix product is enough. Scales are per
token, so a score does not depend on its batch. CPU and CUDA tensors both use `torch._int_mm`
(tensor cores on a GPU; the CPU path is for tests).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 (the name everybody knows it by)
from torch import Tensor

_LEVEL = 127
_MIN_ROWS = 32  # cuBLAS requires more than 16 rows for int8 products


class Int8Linear:
    """`x @ weight.T + bias` with `weight` int8 (out, in), `scale` float32 (out,), x (rows, in)."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        rows = weight.float()
        self.scale = rows.abs().amax(1).clamp(min=1e-12) / _LEVEL
        self.weight = torch.round(rows / self.scale[:, None]).to(torch.int8).contiguous()
        self.bias = bias.float()

    def __call__(self, x: Tensor) -> Tensor:
        step = x.abs().amax(1, keepdim=True).float().clamp_(min=1e-12) / _LEVEL
        quantised = torch.round(x / step).to(torch.int8)
        count = len(quantised)
        if count < _MIN_ROWS:
            quantised = F.pad(quantised, (0, 0, 0, _MIN_ROWS - count))
        sums = torch._int_mm(quantised, self.weight.t())[:count]
        return torch.addcmul(self.bias, sums.float(), step * self.scale).to(x.dtype)

    @property
    def nbytes(self) -> int:
        return self.weight.nbytes + self.scale.nbytes + self.bias.nbytes


class MakeInt8:
    """A MakeProjection that creates int8 linear layers and stores them in `linears` by name.

    `saved_bytes` is how much smaller they are than the original weights.
    """

    def __init__(self) -> None:
        self.linears: dict[str, Int8Linear] = {}
        self.saved_bytes = 0

    def __call__(self, name: str, weight: Tensor, bias: Tensor) -> Int8Linear:
        linear = self.linears[name] = Int8Linear(weight, bias)
        self.saved_bytes += weight.nbytes + bias.nbytes - linear.nbytes
        return linear
