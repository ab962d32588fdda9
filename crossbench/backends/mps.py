"""backend=mps: the padded forward tuned for an Apple GPU."""

from __future__ import annotations

from dataclasses import dataclass

from crossbench.backends.pytorch import PyTorchBackend
from crossbench.errors import ConfigError
from crossbench.types import TokenBatch


@dataclass
class MpsBackend(PyTorchBackend):
    """Pads to multiples of `bucket_tokens`: the Metal allocator keeps a buffer for every shape that
    it has met, so few shapes keep its memory bounded."""

    bucket_tokens: int

    def __post_init__(self) -> None:
        if self.bucket_tokens < 1:
            raise ConfigError(f"backend.bucket_tokens must be positive, got {self.bucket_tokens}")

    def _wanted_device(self) -> str:
        wanted = self.deployment.device
        if wanted not in ("auto", "mps"):
            raise ConfigError(f"backend=mps runs on the Apple GPU, got device={wanted}: drop it")
        return "mps"

    def _pad_to(self, batch: TokenBatch) -> int:
        longest, step = int(batch.lengths.max()), self.bucket_tokens
        return min(-(-longest // step) * step, self.deployment.model.max_length)
