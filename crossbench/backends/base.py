"""The Backend protocol: how scores are computed, and nothing else."""

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
    """What a backend is to serve and on what: given to it by the composition root.

    `device` is `auto`, `cpu`, `cuda`, `cuda:1` or `mps`. `threads` is how many CPU threads one
    call of infer() may use. `cache_dir` holds what a backend derives from the model.
    """

    model: ModelFolder
    quant: Quant
    device: str
    threads: int
    cache_dir: Path


@dataclass(frozen=True)
class Traits:
    """What others have to know of a backend, so that nobody asks for its name.

    `computes_scores`: a model computes what it returns; else it shows what the harness alone can
    do. `is_reference`: its fp32 scores on the CPU are what others are compared with. On the kinds
    of device in `too_slow_on` its scores are right and its speed is not worth measuring.
    """

    computes_scores: bool = True
    is_reference: bool = False
    too_slow_on: tuple[Kind, ...] = ()


@runtime_checkable
class Derives(Protocol):
    """A backend whose load_model() makes something of the model, once per cache."""

    def artifact(self) -> Artifact: ...


class Backend(Protocol):
    """One engine serving one model.

    A backend is a cheap dataclass: constructing it imports no heavy library. `infer` may be called
    from `workers` threads at once and returns host values, so it synchronises its device itself.
    """

    name: str
    deployment: Deployment
    supported: ClassVar[Supported]
    traits: ClassVar[Traits]

    @property
    def layout(self) -> Layout:
        """What the scheduler should count a micro-batch's cost by; known before load_model()."""
        ...

    @property
    def encoder(self) -> str:
        """Whose forward computes this model: `packed`, `transformers`, or the engine's own graph.

        Known before load_model(): it follows from the model's family.
        """
        ...

    @classmethod
    def missing(cls, quant: Quant, device: str) -> Missing | None:
        """What this machine lacks for a supported precision and device; imports, loads no model."""
        ...

    @property
    def workers(self) -> int:
        """How many callers of infer() at once it makes use of."""
        ...

    @property
    def device(self) -> str:
        """The device that `auto` became, known after load_model()."""
        ...

    def load_model(self) -> None:
        """Import the engine, load the weights, move them to the device.

        Raises:
            BackendUnavailable: a library or device is missing here; says which and what brings it.
            UnsupportedQuant, UnsupportedDevice: it has no such precision or kind of device.
            ModelError: the model's folder is broken or of a family that this backend cannot run.
        """
        ...

    def warmup(self, lengths: Sequence[int]) -> None:
        """Compile and run once over sequences of these token lengths, so that serving need not."""
        ...

    def infer(self, batch: TokenBatch) -> Inference:
        """Scores (n,) or embeddings (n, dim) as float32 on the host, in the batch's order."""
        ...

    def memory(self) -> DeviceMemory:
        """What the model and its buffers hold on the device; None where it is host memory.

        `model_mb` is told wherever it is: one copy of the weights, in the types they are held in.
        """
        ...

    def close(self) -> None:
        """Free the model; load_model() may be called again."""
        ...
