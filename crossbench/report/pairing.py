"""Match the cells of two sweeps, and find what else differs between them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from crossbench.errors import ConfigError
from crossbench.report.axes import flatten, full_label, varying
from crossbench.report.facts import MACHINE, fact_text
from crossbench.results import RunResult
from crossbench.wording import ABSENT

_FACTS = ("host", "cpu", "gpus", "cores_usable", "os", "python", "git_commit", "git_dirty")
_SHOWN = 5  # settings that an error lists
_DIGEST_CHARACTERS = 36  # MLflow stores no more of a data set's digest


class Match(StrEnum):
    """How the cells of two sweeps are matched."""

    IDENTITY = "identity"  # by cell_id: all settings that decide what is measured are equal
    LABEL = "label"  # by name: the backend, the precision, the batch size, the load and the axes


@dataclass(frozen=True, slots=True)
class Pair:
    """One cell that both sweeps have, with all its runs in each."""

    label: str
    a: tuple[RunResult, ...]
    b: tuple[RunResult, ...]


@dataclass(frozen=True, slots=True)
class Paired:
    """The cells of two sweeps: those in both, and the names of those in only one."""

    pairs: tuple[Pair, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Distinction:
    """Something that differs between the two sweeps, with the values of each as text."""

    name: str
    a: str
    b: str


def pair_cells(a: Sequence[RunResult], b: Sequence[RunResult], match: Match) -> Paired:
    """Match the cells of two sweeps; runs of the same cell are repeats of it.

    Raises:
        ConfigError: no cell is in both, or a name is that of several cells of one sweep.
    """
    axes = _axes(a, b)
    cells = [_grouped(side, axes, match) for side in (a, b)]
    keys = [key for key in cells[0] if key in cells[1]]
    labels = [
        {key: full_label(runs[0].config, axes) or "a cell without a configuration"
         for key, runs in side.items()}
        for side in cells
    ]  # fmt: skip
    if not keys:
        raise ConfigError(
            f"the two have no cell in common (matched by {match}). A has "
            f"{_names(list(labels[0].values()))}; B has {_names(list(labels[1].values()))}. "
            f"{_hint(a, b, match)}"
        )
    return Paired(
        tuple(Pair(labels[1][key], tuple(cells[0][key]), tuple(cells[1][key])) for key in keys),
        tuple(label for key, label in labels[0].items() if key not in keys),
        tuple(label for key, label in labels[1].items() if key not in keys),
    )


def _hint(a: Sequence[RunResult], b: Sequence[RunResult], match: Match) -> str:
    """What to do if no cell is in both."""
    if match is Match.LABEL:
        return "Give two sweeps of the same backends, precisions, batch sizes and loads"
    advice = (
        "Give two sweeps with the same settings, or --match label if only the version of "
        "crossbench changed what identifies a cell"
    )
    with contextlib.suppress(ConfigError):
        differing = _settings(pair_cells(a, b, Match.LABEL).pairs)
        listed = ", ".join(f"{item.name} ({item.a} / {item.b})" for item in differing[:_SHOWN])
        return f"Cells of the same name differ in {listed}. {advice}"
    return advice


def contradictions(pairs: Sequence[Pair]) -> list[Distinction]:
    """Return what makes a comparison meaningless: another model, other data, another precision."""
    found: dict[Distinction, None] = {}
    for pair in pairs:
        for name, value_of in _MUST_AGREE.items():
            a, b = (_values(runs, value_of) for runs in (pair.a, pair.b))
            if a and b and a != b:
                found[Distinction(name, ", ".join(sorted(a)), ", ".join(sorted(b)))] = None
    return list(found)


def explanations(pairs: Sequence[Pair]) -> list[Distinction]:
    """Return what may explain a difference: another machine, other versions, other settings."""
    a, b = ([run for pair in pairs for run in side(pair)] for side in (_a, _b))
    found = [
        _distinction(MACHINE.get(key, key), key, a, b, lambda run, key: run.environment.get(key))
        for key in _FACTS
    ]
    libraries = dict.fromkeys(
        name for run in (*a, *b) for name in run.environment.get("versions") or {}
    )
    found += [
        _distinction(f"version of {name}", name, a, b,
                     lambda run, name: (run.environment.get("versions") or {}).get(name))
        for name in libraries
    ]  # fmt: skip
    return [item for item in found if item is not None] + _settings(pairs)


def _a(pair: Pair) -> tuple[RunResult, ...]:
    return pair.a


def _b(pair: Pair) -> tuple[RunResult, ...]:
    return pair.b


def _axes(a: Sequence[RunResult], b: Sequence[RunResult]) -> list[str]:
    """The keys that vary inside one of the sweeps; what differs between them names no cell."""
    varied = [varying([run.config for run in side]) for side in (a, b)]
    return list(dict.fromkeys(key for side in varied for key in side))


def _grouped(
    side: Sequence[RunResult], axes: Sequence[str], match: Match
) -> dict[str, list[RunResult]]:
    groups: dict[str, list[RunResult]] = {}
    for run in side:
        key = run.cell_id if match is Match.IDENTITY else full_label(run.config, axes)
        if run.config:
            groups.setdefault(key, []).append(run)
    for key, runs in groups.items():
        if len({run.cell_id for run in runs}) > 1:
            raise ConfigError(
                f"several cells of one sweep have the name {key!r}, so they cannot be matched by "
                "label: leave out --match label"
            )
    return groups


def _names(labels: Sequence[str]) -> str:
    shown = [f"{label!r}" for label in labels[:3]]
    more = f" and {len(labels) - 3} more" if len(labels) > 3 else ""
    return (", ".join(shown) or "no cell") + more


def _values(runs: Sequence[RunResult], value_of: Callable[[RunResult], Any]) -> set[str]:
    return {str(value) for run in runs if (value := value_of(run)) is not None}


def _dataset_digest(run: RunResult) -> str | None:
    digest = run.dataset.get("digest")
    return None if digest is None else str(digest)[:_DIGEST_CHARACTERS]


_MUST_AGREE: Mapping[str, Callable[[RunResult], Any]] = {
    "hash of the model": lambda run: run.model.get("digest"),
    "hash of the data set": _dataset_digest,
    "precision": lambda run: run.model.get("quant"),  # that of the server, which may be remote
    "task": lambda run: run.task,
}


def _distinction(
    name: str,
    key: str,
    a: Sequence[RunResult],
    b: Sequence[RunResult],
    value_of: Callable[[RunResult, str], Any],
) -> Distinction | None:
    texts = [
        ", ".join(sorted({fact_text(value_of(run, key)) for run in side if run.environment}))
        for side in (a, b)
    ]
    return None if texts[0] == texts[1] else Distinction(name, *(text or ABSENT for text in texts))


def _settings(pairs: Sequence[Pair]) -> list[Distinction]:
    """The settings in which matched cells differ; none if they were matched by identity."""
    found: dict[Distinction, None] = {}
    for pair in pairs:
        if pair.a[0].cell_id == pair.b[0].cell_id:
            continue
        a, b = (flatten(side[0].config.comparable) for side in (pair.a, pair.b))
        for key in dict.fromkeys([*a, *b]):
            if key != "repeat" and a.get(key) != b.get(key):
                found[Distinction(key, a.get(key, ABSENT), b.get(key, ABSENT))] = None
    return list(found)
