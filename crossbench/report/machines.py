"""The machines that measured the cells of a sweep: which they are, and what may be compared.

Cells are compared within blocks. Runs on unlike machines are never in one block, so that no
difference between machines is taken for one between cells.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

from crossbench.measure.machines import kinds_of_machines
from crossbench.report.cells import CellSummary, Run, block_of, finished_runs
from crossbench.report.facts import fact_text
from crossbench.report.tables import markdown_table
from crossbench.settings.overrides import REPEAT
from crossbench.wording import ABSENT, counted, join_first, join_words, number

_MB_PER_GB = 1000


def machine_of(run: Run) -> str:
    """The name of the machine that measured a run; empty if no machine did."""
    return str(run.result.environment.get("host", ""))


def machines_of(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """The runs of each machine, by its name."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        if name := machine_of(run):
            found.setdefault(name, []).append(run)
    return found


def machine_names(cell: CellSummary) -> str:
    """The machines of a cell, in the order of its runs."""
    return ", ".join(machines_of(cell.runs)) or ABSENT


def with_kinds(runs: Sequence[Run]) -> list[Run]:
    """Return the runs with the kinds of their machines, if these differ."""
    kinds = _kinds(runs)
    if len(set(kinds.values())) < 2:
        return list(runs)
    return [replace(run, kind=kinds.get(machine_of(run), "")) for run in runs]


def never_together(cells: Sequence[CellSummary]) -> bool:
    """Whether two of the measured cells share no block, because unlike machines measured them."""
    blocks = [{block_of(run) for run in finished_runs(cell.runs)} for cell in cells]
    apart = any(a.isdisjoint(b) for a, b in itertools.combinations(filter(None, blocks), 2))
    return apart and any(run.kind for cell in cells for run in cell.runs)


def machines_note(runs: Sequence[Run]) -> str:
    """What several machines mean for the comparisons; empty for one."""
    machines = machines_of(runs)
    if len(machines) < 2:
        return ""
    kinds: dict[str, list[str]] = {}
    for name, kind in _kinds(runs).items():
        kinds.setdefault(kind, []).append(name)
    repeated = _is_repeated(runs)
    advice = "" if repeated else " With `repeats=3`, each block is measured on one machine."
    if len(kinds) > 1:
        groups = "; ".join(join_first(names, separator=", ") for names in kinds.values())
        return (
            f"**Unlike machines:** the cells were measured on {counted(len(machines), 'machine')} "
            f"of {counted(len(kinds), 'kind')} ({groups}). Only what was measured on machines of "
            f"one kind in the same block is compared; plots show all.{advice}"
        )
    same = "The blocks were" if repeated else "The cells were"
    return (
        f"**{counted(len(machines), 'machine').capitalize()} of one kind:** {same.lower()} "
        f"measured on {join_words(list(machines))}. How much such machines differ "
        f"is not known{'' if repeated else ', and not part of any interval'}.{advice}"
    )


def machines_section(runs: Sequence[Run]) -> str:
    """The table of the machines, if there are several."""
    machines = machines_of(runs)
    if len(machines) < 2:
        return ""
    rows = []
    for name, of_machine in machines.items():
        facts = of_machine[-1].result.environment
        memory_mb = facts.get("memory_total_mb")
        rows.append([
            name,
            fact_text(facts.get("cpu")),
            fact_text(facts.get("cores_usable")),
            number(memory_mb / _MB_PER_GB) if memory_mb else ABSENT,
            ", ".join(_gpus(of_machine)) or ABSENT,
            _blocks(of_machine) if _is_repeated(runs) else counted(len(of_machine), "cell"),
        ])  # fmt: skip
    headers = ["machine", "CPU", "usable cores", "memory (GB)", "GPUs", "measured"]
    return f"## Machines\n\n{markdown_table(headers, rows, 'llrrll')}"


def _is_repeated(runs: Sequence[Run]) -> bool:
    """Whether the sweep has several blocks."""
    return len({run.result.config.value(REPEAT) for run in runs if run.result.config}) > 1


def _blocks(runs: Sequence[Run]) -> str:
    """Which blocks a machine measured."""
    blocks = [run.result.config.value(REPEAT) for run in runs]
    counts = {block: blocks.count(block) for block in sorted(set(blocks), key=str)}
    return "; ".join(f"block {block}: {counted(count, 'run')}" for block, count in counts.items())


def _kinds(runs: Sequence[Run]) -> dict[str, str]:
    return kinds_of_machines(run.result.environment for run in runs)


def _gpus(runs: Sequence[Run]) -> list[str]:
    names = {str(gpu) for run in runs for gpu in run.result.environment.get("gpus") or ()}
    return sorted(names)
