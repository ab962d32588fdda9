"""The Backend protocol: the interface of an inference engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Protocol, runtime_checkable

from crossbench.backends.artifacts import Artifact
from crossbench.backends.availability import Kind, Missing, Supported
from crossbench.models.folder import ModelFolder
from crossbench.types import DeviceMemory, Inference, Quant, TokenBatch

Layout = Literal["padded", "packed"]


@dataclass(frozen=True)
class Deployment:
    """The model, precision and device that a backend serves; the composition root creates it.

    `device` is `auto`, `cpu`, `cuda`, `cuda:1` or `mps`. `threads` is the number of CPU threads
    that one call of infer() may use. `cache_dir` holds files that a backend derives from the model.
    """

    model: ModelFolder
    quant: Quant
    device: str
    threads: int
    cache_dir: Path


@dataclass(frozen=True)
class Traits:
    """Properties of a backend that other code needs, so that no code tests for a backend's name.

    `computes_scores`: a model computes the values; if False, the backend measures the harness's
    own overhead. `is_reference`: its fp32 scores on the CPU are the reference scores. On the kinds
    of device in `too_slow_on` its scores are correct but its speed is not meaningful.
    """

    computes_scores: bool = True
    is_reference: bool = False
    too_slow_on: tuple[Kind, ...] = ()


@runtime_checkable
class HasArtifact(Protocol):
    """A backend whose load_model() builds an artifact from the model and caches it."""

    def artifact(self) -> Artifact: ...


class Backend(Protocol):
    """One engine serving one model.

    A backend is a cheap dataclass: constructing it imports no heavy library. Up to `workers`
    threads may call `infer` at once. It returns host values, so it synchronises its device itself.
    """

    name: str
    deployment: Deployment
    supported: ClassVar[Supported]
    traits: ClassVar[Traits]

    @property
    def layout(self) -> Layout:
        """Whether a micro-batch costs its padded or its real tokens, known before load_model()."""
        ...

    @property
    def encoder(self) -> str:
        """The forward pass in use: `packed`, `transformers`, or the name of the engine's own graph.

        Known before load_model(), because it depends only on the model's family.
        """
        ...

    @classmethod
    def missing(cls, quant: Quant, device: str) -> Missing | None:
        """Return what this machine lacks for a supported precision and device, or None.

        May import the engine's library but loads no model.
        """
        ...

    @property
    def workers(self) -> int:
        """The number of concurrent infer() calls that the backend benefits from."""
        ...

    @property
    def device(self) -> str:
        """The device that the model is on, known after load_model()."""
        ...

    def load_model(self) -> None:
        """Import the engine, load the weights and move them to the device.

        Raises:
            BackendUnavailable: this machine lacks a library or device; the message names it.
            UnsupportedQuant, UnsupportedDevice: the backend does not support it on any machine.
            ModelError: the model's folder is invalid, or this backend cannot run its family.
        """
        ...

    def warmup(self, lengths: Sequence[int]) -> None:
        """Compile and run once on sequences of these lengths, so that no request has to wait."""
        ...

    def infer(self, batch: TokenBatch) -> Inference:
        """Return scores (n,) or embeddings (n, dim) as float32 on the host, in batch order."""
        ...

    def memory(self) -> DeviceMemory:
        """Return the device memory of the model and its buffers; None on a CPU.

        `model_mb` is always given: the size of one copy of the weights, in their stored types.
        """
        ...

    def close(self) -> None:
        """Free the model; load_model() may be called again afterwards."""
        ...
