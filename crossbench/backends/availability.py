"""Check whether a backend can compute in a precision on a device of this machine.

load_model(), `python -m crossbench.doctor` and the tests share this check, so they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, TypeAlias

from crossbench.errors import BackendUnavailable, UnsupportedDevice, UnsupportedQuant
from crossbench.types import Quant

Kind = Literal["cpu", "cuda", "mps"]
# The kinds of device that a backend supports for each precision, in order of preference
Supported: TypeAlias = Mapping[Quant, tuple[Kind, ...]]


@dataclass(frozen=True, slots=True)
class Ready:
    """The backend can run on `device`: `cpu`, `cuda:0`, `mps`, or `none` if it needs no device."""

    device: str


@dataclass(frozen=True, slots=True)
class Missing:
    """A library or device that this machine lacks, and how to get it (a command if possible)."""

    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}: {self.remedy}"


@dataclass(frozen=True, slots=True)
class Unavailable:
    """The backend cannot run on this machine; fixing any one entry of `lacks` is enough."""

    lacks: tuple[Missing, ...]

    def __str__(self) -> str:
        return "; or ".join(map(str, self.lacks))


@dataclass(frozen=True, slots=True)
class Unsupported:
    """The backend cannot run on any machine; `reason` lists what it supports.

    `is_quant` is True if the precision is unsupported, False if the kind of device is.
    """

    reason: str
    is_quant: bool


Availability: TypeAlias = Ready | Unavailable | Unsupported


class Checkable(Protocol):
    """The parts of a backend's class that the check uses."""

    supported: ClassVar[Supported]

    @classmethod
    def missing(cls, quant: Quant, device: str) -> Missing | None: ...


def find_unsupported(supported: Supported, quant: Quant, device: str) -> Unsupported | None:
    """Return why the backend supports this on no machine, or None. Imports nothing."""
    if quant not in supported:
        listed = ", ".join(choice.value for choice in Quant if choice in supported)
        reason = f"the backend does not support {quant.value}: set quant= to one of {listed}"
        return Unsupported(reason, is_quant=True)
    kinds = supported[quant]
    if kinds and device != "auto" and device.partition(":")[0] not in kinds:
        reason = (
            f"in {quant.value} the backend runs on {' or '.join(kinds)}, not on device={device}: "
            f"give device=auto or device={kinds[0]}, or choose another backend for that device"
        )
        return Unsupported(reason, is_quant=False)
    return None


def availability(backend: type[Checkable], quant: Quant, device: str) -> Availability:
    """Return whether this machine can run the backend; `auto` selects the best available device.

    Imports the backend's library but loads no model.
    """
    if unsupported := find_unsupported(backend.supported, quant, device):
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


def require(name: str, backend: type[Checkable], quant: Quant, device: str) -> str:
    """Return the device that the backend named `name` will run on.

    Raises:
        UnsupportedQuant, UnsupportedDevice: the backend does not support it on any machine.
        BackendUnavailable: this machine lacks something; the message names it and how to get it.
    """
    found = availability(backend, quant, device)
    if isinstance(found, Ready):
        return found.device
    raise_unsupported(name, found, quant)
    raise BackendUnavailable(f"backend={name} quant={quant.value} is not available here. {found}")


def raise_unsupported(name: str, found: Availability | None, quant: Quant) -> None:
    """Raise an error if `found` is Unsupported.

    Raises:
        UnsupportedQuant, UnsupportedDevice: the message lists what the backend supports.
    """
    if isinstance(found, Unsupported):
        error = UnsupportedQuant if found.is_quant else UnsupportedDevice
        raise error(f"backend={name} quant={quant.value}: {found.reason}")
