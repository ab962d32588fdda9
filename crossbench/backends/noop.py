"""backend=noop: answers immediately without a model, to measure the harness's own overhead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from crossbench.backends.availability import Missing, Supported
from crossbench.backends.base import Deployment, Layout, Traits
from crossbench.types import DeviceMemory, Inference, Quant, TokenBatch


@dataclass
class NoopBackend:
    """Returns each sequence's length as its score or vector, so that tests can check the order."""

    supported: ClassVar[Supported] = dict.fromkeys(Quant, ())
    layout: ClassVar[Layout] = "packed"
    traits: ClassVar[Traits] = Traits(computes_scores=False)

    name: str
    deployment: Deployment

    @classmethod
    def missing(cls, quant: Quant, device: str) -> Missing | None:
        return None

    @property
    def encoder(self) -> str:
        return "none"

    @property
    def workers(self) -> int:
        return 1

    @property
    def device(self) -> str:
        return "none"

    def load_model(self) -> None:
        """Do nothing."""

    def warmup(self, lengths: Sequence[int]) -> None:
        """Do nothing."""

    def infer(self, batch: TokenBatch) -> Inference:
        values = batch.lengths.astype("float32")
        if dim := self.deployment.model.embedding_dim:
            values = values[:, None].repeat(dim, axis=1)
        return Inference(values, batch.total_tokens)

    def memory(self) -> DeviceMemory:
        return DeviceMemory()

    def close(self) -> None:
        """Do nothing."""
