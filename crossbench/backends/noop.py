"""backend=noop: answers without a model, to measure the harness's own overhead.

With `service_us_per_pair` it is a server of known speed, for which the true throughput and waiting
times can be computed.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from crossbench.backends.availability import Missing, Supported
from crossbench.backends.base import Deployment, Layout, Traits
from crossbench.errors import ConfigError
from crossbench.types import DeviceMemory, Inference, Quant, TokenBatch

SERVICE_KINDS = ("sleep", "busy")
_BLOCK = bytes(1 << 16)  # hashing it takes about 0.1 ms without the interpreter's lock


@dataclass
class NoopBackend:
    """Returns each sequence's length as its score or vector, so that tests can check the order.

    A micro-batch takes `service_us_per_pair` microseconds per sequence, during which the thread
    sleeps (`service_kind` sleep) or keeps a core busy (busy).
    """

    supported: ClassVar[Supported] = dict.fromkeys(Quant, ())
    layout: ClassVar[Layout] = "packed"
    traits: ClassVar[Traits] = Traits(computes_scores=False)

    name: str
    deployment: Deployment
    service_us_per_pair: float
    service_kind: str

    def __post_init__(self) -> None:
        if not 0 <= self.service_us_per_pair < float("inf"):
            raise ConfigError(
                f"backend.service_us_per_pair must be 0 or more microseconds, got "
                f"{self.service_us_per_pair}: give for example backend.service_us_per_pair=1000"
            )
        if self.service_kind not in SERVICE_KINDS:
            raise ConfigError(
                f"backend.service_kind must be one of {', '.join(SERVICE_KINDS)}, got "
                f"{self.service_kind!r}: give backend.service_kind=sleep"
            )

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
        end_s = time.perf_counter() + len(batch) * self.service_us_per_pair / 1e6
        if self.service_kind == "busy":
            while time.perf_counter() < end_s:
                hashlib.sha256(_BLOCK)
        elif self.service_us_per_pair:
            time.sleep(max(0.0, end_s - time.perf_counter()))
        values = batch.lengths.astype("float32")
        if dim := self.deployment.model.embedding_dim:
            values = values[:, None].repeat(dim, axis=1)
        return Inference(values, batch.total_tokens)

    def memory(self) -> DeviceMemory:
        return DeviceMemory()

    def close(self) -> None:
        """Do nothing."""
