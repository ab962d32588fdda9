"""Whether a backend can compute in a precision on a device of this machine, or what it lacks.

The one check that load_model(), `python -m crossbench.doctor` and the tests share, so that they
cannot disagree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, TypeAlias

from crossbench.errors import BackendUnavailable, UnsupportedDevice, UnsupportedQuant
from crossbench.types import Quant

Kind = Literal["cpu", "cuda", "mps"]
# For each precision the kinds of device that it has a path for, the best first.
Supported: TypeAlias = Mapping[Quant, tuple[Kind, ...]]


@dataclass(frozen=True, slots=True)
class Ready:
    """It can, on this device: `cpu`, `cuda:0`, `mps`, or `none` where no device is needed."""

    device: str


@dataclass(frozen=True, slots=True)
class Missing:
    """What is missing on this machine, and what brings it (a command where there is one)."""

    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}: {self.remedy}"


@dataclass(frozen=True, slots=True)
class Unavailable:
    """It cannot on this machine: any one of `lacks` being brought would do."""

    lacks: tuple[Missing, ...]

    def __str__(self) -> str:
        return "; or ".join(map(str, self.lacks))


@dataclass(frozen=True, slots=True)
class Unsupported:
    """It cannot on any machine: `reason` says what it has instead."""

    reason: str
    is_quant: bool


Availability: TypeAlias = Ready | Unavailable | Unsupported


class Checked(Protocol):
    """What the check asks of a backend's class."""

    supported: ClassVar[Supported]

    @classmethod
    def missing(cls, quant: Quant, device: str) -> Missing | None: ...


def support(supported: Supported, quant: Quant, device: str) -> Unsupported | None:
    """Why no machine could do it, or None. Imports nothing."""
    if quant not in supported:
        listed = ", ".join(choice.value for choice in Quant if choice in supported)
        reason = f"it does not compute in {quant.value}: give quant= one of {listed}"
        return Unsupported(reason, is_quant=True)
    kinds = supported[quant]
    if kinds and device != "auto" and device.partition(":")[0] not in kinds:
        reason = (
            f"in {quant.value} it runs on {' or '.join(kinds)}, not on device={device}: "
            f"give device=auto or {kinds[0]}, or another backend for that device"
        )
        return Unsupported(reason, is_quant=False)
    return None


def availability(backend: type[Checked], quant: Quant, device: str) -> Availability:
    """Whether this machine can; `device` auto becomes the best that the backend has here.

    Imports the backend's library, loads no model.
    """
    if unsupported := support(backend.supported, quant, device):
        return unsupported
    kinds = backend.supported[quant]
    wanted = list(kinds) if device == "auto" else [device]
    lacks = []
    for candidate in wanted if kinds else ["none"]:
        missing = backend.missing(quant, candidate)
        if missing is None:
            return Ready(f"{candidate}:0" if candidate == "cuda" else candidate)
        lacks.append(missing)
    return Unavailable(tuple(dict.fromkeys(lacks)))


def require(name: str, backend: type[Checked], quant: Quant, device: str) -> str:
    """The device that a backend named `name` shall compute on.

    Raises:
        UnsupportedQuant, UnsupportedDevice: it has no such path on any machine.
        BackendUnavailable: this machine lacks something; says what, and what brings it.
    """
    found = availability(backend, quant, device)
    if isinstance(found, Ready):
        return found.device
    refuse(name, found, quant)
    raise BackendUnavailable(f"backend={name} quant={quant.value} is not available here. {found}")


def refuse(name: str, found: Availability | None, quant: Quant) -> None:
    """Raise what is unsupported.

    Raises:
        UnsupportedQuant, UnsupportedDevice: with the list of what the backend has.
    """
    if isinstance(found, Unsupported):
        error = UnsupportedQuant if found.is_quant else UnsupportedDevice
        raise error(f"backend={name} quant={quant.value}: {found.reason}")
