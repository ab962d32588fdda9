"""backend=noop: answers at once without a model. What is left is the harness's own floor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from crossbench.backends.availability import Missing, Supported
from crossbench.backends.base import Deployment, Layout
from crossbench.types import DeviceMemory, Inference, Quant, TokenBatch


@dataclass
class NoopBackend:
    """Scores are the sequences' lengths in tokens, so that their order can be checked."""

    supported: ClassVar[Supported] = dict.fromkeys(Quant, ())
    layout: ClassVar[Layout] = "packed"

    name: str
    deployment: Deployment

    @classmethod
    def missing(cls, quant: Quant, device: str) -> Missing | None:
        return None

    @property
    def workers(self) -> int:
        return 1

    @property
    def device(self) -> str:
        return "none"

    def load_model(self) -> None:
        """There is nothing to load."""

    def warmup(self, lengths: Sequence[int]) -> None:
        """There is nothing to warm up."""

    def infer(self, batch: TokenBatch) -> Inference:
        return Inference(batch.lengths.astype("float32"), batch.total_tokens)

    def memory(self) -> DeviceMemory:
        return DeviceMemory()

    def close(self) -> None:
        """There is nothing to free."""
