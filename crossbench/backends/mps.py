"""backend=mps: transformers' padded forward pass, tuned for an Apple GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from crossbench.backends.availability import Supported
from crossbench.backends.base import Traits
from crossbench.backends.pytorch import PyTorchBackend
from crossbench.errors import ConfigError
from crossbench.types import Quant, TokenBatch


@dataclass
class MpsBackend(PyTorchBackend):
    """Pads sequences to a multiple of `bucket_tokens`.

    The Metal allocator keeps a buffer for every shape, so fewer shapes limit its memory.
    """

    supported: ClassVar[Supported] = dict.fromkeys((Quant.FP32, Quant.FP16), ("mps",))
    traits: ClassVar[Traits] = Traits()

    bucket_tokens: int

    def __post_init__(self) -> None:
        if self.bucket_tokens < 1:
            raise ConfigError(f"backend.bucket_tokens must be positive, got {self.bucket_tokens}")

    def _pad_to(self, batch: TokenBatch) -> int:
        longest, step = int(batch.lengths.max()), self.bucket_tokens
        return min(-(-longest // step) * step, self.deployment.model.max_length)
