"""Which machines measured, and which of them are of one kind, from the environments of results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

# What decides how fast a machine is; two machines with the same values are of one kind
_KIND_KEYS = ("machine", "cpu", "cores_usable")


def kinds_of_machines(environments: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the kind of each machine, by its name; results without a machine are left out.

    Results of one machine may see different parts of its GPUs, which all belong to its kind.
    """
    facts: dict[str, dict[str, Any]] = {}
    gpus: dict[str, set[str]] = {}
    for environment in environments:
        if host := str(environment.get("host", "")):
            facts[host] = facts.get(host, {}) | dict(environment)
            gpus.setdefault(host, set()).update(map(str, environment.get("gpus") or ()))
    return {
        host: ", ".join([*(str(known.get(key)) for key in _KIND_KEYS), *sorted(gpus[host])])
        for host, known in facts.items()
    }
