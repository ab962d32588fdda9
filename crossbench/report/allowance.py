"""The spread from run to run on this machine: stored by `crossbench.selfcheck`, read by reports.

A cell that ran once shows nothing of how much another run of it would differ. Its comparison needs
an allowance for that, from runs of the same machine, or else a stated default.

Which check serves which sweep? A spread is that of one backend: a server that waits for a clock
varies less than one that computes. So the check of a backend serves the cells of that backend. For
a backend that was not checked, the widest spread of all checks on this machine is taken, but never
less than the default. A sweep gets the widest allowance of its backends.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from crossbench.measure.catalogue import DEVICE_PEAK_MB, P95_LATENCY, RATES, RSS_PEAK_MB
from crossbench.measure.contrasts import Allowance
from crossbench.measure.intervals import t_95
from crossbench.system.files import atomic_write
from crossbench.system.json_text import parse_json
from crossbench.wording import counted, number

# The metrics that verdicts are about
JUDGED = (*RATES, P95_LATENCY, RSS_PEAK_MB, DEVICE_PEAK_MB)
COMMAND = "python -m crossbench.selfcheck"
_FOLDER = "selfcheck"
# A spread is only that of the machine on which it was measured
_MACHINE_KEYS = ("host", "cpu", "cores_usable", "gpus")


@dataclass(frozen=True, slots=True)
class Spread:
    """The standard deviation between runs (of the logarithm), and its degrees of freedom."""

    relative_sd: float
    degrees: int


@dataclass(frozen=True, slots=True)
class StoredCheck:
    """What one check of a backend found. `date` is ISO 8601, `spreads` are by name of metric."""

    backend: str
    date: str
    command: str
    runs: int
    versions: Mapping[str, str]
    git_commit: str | None
    spreads: Mapping[str, Spread]


def machine_of(environment: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of `environment()` that a spread belongs to."""
    return {key: environment.get(key) for key in _MACHINE_KEYS}


def check_file(cache_dir: Path, environment: Mapping[str, Any]) -> Path:
    """Return the file with the checks of the machine that `environment` describes."""
    text = json.dumps(machine_of(environment), sort_keys=True)
    return cache_dir / _FOLDER / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"


def store_check(cache_dir: Path, environment: Mapping[str, Any], check: StoredCheck) -> Path:
    """Store a check; it replaces the machine's earlier check of the same backend.

    Raises:
        OSError: the folder cannot be written.
    """
    path = check_file(cache_dir, environment)
    checks = {**read_checks(cache_dir, environment), check.backend: check}
    document = {
        "machine": machine_of(environment),
        "checks": {name: asdict(item) for name, item in checks.items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(document, indent=2) + "\n", "utf-8")
    return path


def read_checks(cache_dir: Path, environment: Mapping[str, Any]) -> dict[str, StoredCheck]:
    """Return the checks of this machine by backend; none if the file is absent or damaged."""
    try:
        document = parse_json(check_file(cache_dir, environment).read_text("utf-8"))
        return {
            name: StoredCheck(
                **{
                    **item,
                    "spreads": {key: Spread(**value) for key, value in item["spreads"].items()},
                }
            )
            for name, item in document["checks"].items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def read_allowance(
    cache_dir: Path,
    environment: Mapping[str, Any],
    default: float,
    backends: Collection[str] = (),
) -> dict[str, Allowance]:
    """Return the allowance for each metric of `JUDGED`, by its name.

    `environment` describes the machine that measured the cells, `default` is `report.spread`, and
    `backends` are those of the cells. Without any, the allowance is that of a backend that was not
    checked.
    """
    checks = read_checks(cache_dir, environment)
    found = {}
    for metric in JUDGED:
        measured = {
            name: Allowance(spread.relative_sd, spread.degrees, _source(spread, check))
            for name, check in checks.items()
            if (spread := check.spreads.get(metric.name)) is not None
        }
        unchecked = _widest([_default(default), *measured.values()])
        found[metric.name] = _widest(
            [measured.get(name, unchecked) for name in backends] or [unchecked]
        )
    return found


def _widest(allowances: Collection[Allowance]) -> Allowance:
    """The allowance with the widest 95 % interval of one run."""
    return max(allowances, key=lambda allowance: t_95(allowance.degrees) * allowance.relative_sd)


def _default(spread: float) -> Allowance:
    source = (
        f"the default of {100 * spread:g} % (report.spread), because {COMMAND} has not measured "
        "it on this machine for every backend of the sweep"
    )
    return Allowance(spread, math.inf, source)


def _source(spread: Spread, check: StoredCheck) -> str:
    return (
        f"{number(100 * spread.relative_sd, 2)} %, measured by {COMMAND} on this machine "
        f"({check.backend}, {counted(check.runs, 'run')}, {check.date[:10]})"
    )
