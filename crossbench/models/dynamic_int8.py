"""Dynamic int8 quantisation of torch modules on a CPU: int8 weights, inputs quantised at run time.

It replaces the deprecated quantize_dynamic of torch.ao and uses the same kernels (FBGEMM on x86,
QNNPACK on Arm), with one weight scale per output row. The input has one scale for the whole batch,
so a score depends slightly on its batch. int8 in backend=onnx and openvino does not have this flaw.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn


class DynamicInt8Linear(nn.Module):
    """`nn.Linear` with qint8 weights (out, in), from float32 (..., in) to float32 (..., out).

    `reduce_range` quantises inputs to 7 bits, for CPUs that accumulate int8 products in 16 bits.
    """

    def __init__(self, linear: nn.Linear, reduce_range: bool) -> None:
        super().__init__()
        rows = linear.weight.detach().float()
        scales = rows.abs().amax(1).clamp(min=1e-12) / 127
        zeros = torch.zeros(len(scales), dtype=torch.long)
        with warnings.catch_warnings():
            # Quantised tensors are deprecated, but the kernels accept no other type of weights
            warnings.filterwarnings("ignore", "torch.quantize_per", category=UserWarning)
            warnings.filterwarnings("ignore", "torch.quantize_per", category=DeprecationWarning)
            weight = torch.quantize_per_channel(rows, scales, zeros, 0, torch.qint8)
        bias = None if linear.bias is None else linear.bias.detach().float()
        self._packed: Any = torch.ops.quantized.linear_prepack(weight, bias)
        self._reduce_range = reduce_range
        self.in_features, self.out_features = linear.in_features, linear.out_features

    @property
    def weight(self) -> Tensor:
        """The stored weights, qint8 (out, in)."""
        stored: Tensor = torch.ops.quantized.linear_unpack(self._packed)[0]
        return stored

    @property
    def bias(self) -> Tensor | None:
        stored: Tensor | None = torch.ops.quantized.linear_unpack(self._packed)[1]
        return stored

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = torch.ops.quantized.linear_dynamic(x, self._packed, self._reduce_range)
        return out

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}weight"] = self.weight
        if (bias := self.bias) is not None:
            destination[f"{prefix}bias"] = bias


def quantize_linears(model: nn.Module, reduce_range: bool) -> None:
    """Replace every nn.Linear in `model`, in place."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear:
                setattr(module, name, DynamicInt8Linear(child, reduce_range))
