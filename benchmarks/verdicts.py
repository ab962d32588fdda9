"""Simulate how often the verdicts of sweeps are wrong, and what differences they find.

    python -m benchmarks.verdicts [--sweeps 1000] [--seed 2029]

Each simulated sweep has a true value for each cell, an error for each run and a drift of 8 % over
its blocks. It is judged by the same functions as real sweeps. Equal cells show how often a
statement is false: against the baseline, about the best cell, or about the order. It writes
outputs/verdicts.md.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from benchmarks.race import machine
from crossbench.measure.contrasts import ALPHA, Allowance, Contrasts, Difference, compare_cells
from crossbench.measure.multiplicity import alpha_of_look, dunnett
from crossbench.measure.winner import corrected_best
from crossbench.report.tables import markdown_table
from crossbench.settings.places import outputs_dir
from crossbench.settings.stored_plan import FIRST_LOOK
from crossbench.wording import percent

CELLS, RUNS = (2, 6, 12, 24), (1, 2, 3, 6)
MOST = 12  # blocks of a sweep with until_decided
DRIFT, MARGIN, ASSUMED_SD = 0.08, 0.02, 0.10
DIFFERENT = frozenset({Difference.HIGHER, Difference.LOWER})


@dataclass(frozen=True, slots=True)
class Scenario:
    """The standard deviations from run to run of the cells of a sweep.

    `first` is the number of cells that have `first_sd`, counted from the end if it is negative;
    None for half of them. The others have `second_sd`. The first cell is the baseline.
    """

    name: str
    first_sd: float
    second_sd: float
    first: int | None = None

    def sds(self, cells: int) -> NDArray[np.float64]:
        """Return the standard deviation of each of `cells` cells."""
        first = (cells + 1) // 2 if self.first is None else self.first % cells
        return np.where(np.arange(cells) < first, self.first_sd, self.second_sd)


SCENARIOS = (
    Scenario("throughput, spread 5 %", 0.05, 0.05),
    Scenario("throughput, spreads 8.6 and 2.2 %", 0.086, 0.022),
    Scenario("p95, spread 8 %", 0.08, 0.08),
    Scenario("peak memory, spread 1 %", 0.01, 0.01),
    Scenario("spread 2 %, of the baseline 10 %", 0.10, 0.02, 1),
    Scenario("spread 2 %, of one other cell 10 %", 0.02, 0.10, -1),
)


@dataclass(frozen=True, slots=True)
class Judged:
    """The statements about one sweep: the verdicts of all pairs, and against the first cell."""

    contrasts: Contrasts
    pairs: dict[tuple[int, int], Difference]
    against: list[Difference]

    def may_be_best(self) -> list[int]:
        """Return the cells that no other one is shown to be higher than; no run is missing."""
        cells = range(self.contrasts.cells)
        worse = {b for (a, b), found in self.pairs.items() if found is Difference.HIGHER}
        worse |= {a for (a, b), found in self.pairs.items() if found is Difference.LOWER}
        return [cell for cell in cells if cell not in worse]


def simulate(
    rng: np.random.Generator, cells: int, runs: int, scenario: Scenario, true: Sequence[float] = ()
) -> Judged:
    """Simulate and judge one sweep; `true` has the cells' true logarithms, 0 for those left out."""
    values = rng.normal(0, 1, (cells, runs)) * scenario.sds(cells)[:, None]
    values += np.linspace(0, -DRIFT, runs)
    values[: len(true)] += np.asarray(true)[:, None]
    contrasts = compare_cells(
        values, allowance=Allowance(ASSUMED_SD, math.inf, "assumed"), margin=MARGIN
    )
    pairs = {
        (a, b): contrasts.pair(a, b).difference for a, b in itertools.combinations(range(cells), 2)
    }
    return Judged(contrasts, pairs, [found.difference for found in contrasts.against(0)[1:]])


def false_statements(sweeps: int, seed: int) -> str:
    """Return the table of the shares of sweeps of equal cells with a false statement."""
    rows = []
    for scenario in SCENARIOS:
        for cells in CELLS:
            row = [scenario.name, str(cells)]
            for runs in RUNS:
                rng = np.random.default_rng([seed, cells, runs, SCENARIOS.index(scenario)])
                wrong = np.zeros(3)
                for _ in range(sweeps):
                    found = simulate(rng, cells, runs, scenario)
                    wrong += (
                        bool(DIFFERENT.intersection(found.against)),
                        len(found.may_be_best()) < cells,
                        bool(DIFFERENT.intersection(found.pairs.values())),
                    )
                row += [percent(share, 1) for share in wrong / sweeps]
            rows.append(row)
            print(" ".join(row), file=sys.stderr, flush=True)
    kinds = ("baseline", "best", "order")
    headers = ["metric", "cells", *(f"{kind}, {runs} runs" for runs in RUNS for kind in kinds)]
    return markdown_table(headers, rows, "lr" + "r" * (len(headers) - 2))


def power(sweeps: int, seed: int) -> str:
    """Return the table of how often a true difference from the baseline is found."""
    rows = []
    for spread, gain, cells, runs in itertools.product(
        (0.02, 0.05), (0.05, 0.10), (2, 6, 12), (3, 6)
    ):
        rng = np.random.default_rng([seed, cells, runs, round(1000 * gain), round(1000 * spread)])
        scenario = Scenario("", spread, spread)
        found = [
            simulate(rng, cells, runs, scenario, (0.0, math.log1p(gain))).against[0]
            for _ in range(sweeps)
        ]
        shares = [found.count(kind) / sweeps for kind in (Difference.HIGHER, Difference.LOWER)]
        limit = _known_spread(math.log1p(gain), spread, cells, runs)
        rows.append([percent(spread), percent(gain), str(cells), str(runs),
                     *(percent(share, 1) for share in (*shares, limit))])  # fmt: skip
        print(" ".join(rows[-1]), file=sys.stderr, flush=True)
    headers = ["spread", "true difference", "cells", "runs", "found", "wrong sign", "spread known"]
    return markdown_table(headers, rows, "r" * len(headers))


def _known_spread(gain: float, spread: float, cells: int, runs: int) -> float:
    """Return the power of Dunnett's comparison if the spread were known and equal in all cells."""
    error = spread * math.sqrt(2 / runs)
    return 1 - NormalDist().cdf(dunnett(cells - 1, math.inf, 0.05) - gain / error)


def same(sweeps: int, seed: int) -> str:
    """Return the table of how often cells are called the same, for true differences."""
    rows = []
    for spread, gain in itertools.product((0.002, 0.005, 0.01), (0.0, 0.01, 0.03)):
        row = [percent(spread, 1), percent(gain)]
        for runs in (3, 6, 12):
            rng = np.random.default_rng([seed, runs, round(1000 * gain), round(10000 * spread)])
            scenario = Scenario("", spread, spread)
            found = [
                simulate(rng, 6, runs, scenario, (0.0, math.log1p(gain))).against[0]
                for _ in range(sweeps)
            ]
            row.append(percent(found.count(Difference.SAME) / sweeps, 1))
        rows.append(row)
        print(" ".join(row), file=sys.stderr, flush=True)
    headers = ["spread", "true difference", *(f"the same, {runs} runs" for runs in (3, 6, 12))]
    return markdown_table(headers, rows, "r" * len(headers))


def winner(sweeps: int, seed: int) -> str:
    """Return the table of by how much the value of the picked cell is too high."""
    rows = []
    kinds = {"equal cells": 0.0, "true values differ by 5 %": 0.05}
    for (name, between), cells, runs in itertools.product(kinds.items(), (2, 6, 12, 24), (1, 3)):
        rng = np.random.default_rng([seed, cells, runs, round(100 * between)])
        errors = np.zeros(2)
        for _ in range(sweeps):
            true = rng.normal(0, between, cells)
            found = simulate(rng, cells, runs, SCENARIOS[0], true.tolist())
            drift = -DRIFT / 2 if runs > 1 else 0.0
            means = found.contrasts.fit.means - drift
            best = int(means.argmax())
            corrected = corrected_best(found.contrasts, found.may_be_best(), best)
            assert corrected is not None
            errors += (means[best] - true[best], math.log(corrected) - drift - true[best])
        rows.append([name, str(cells), str(runs), *(f"{100 * e / sweeps:+.1f} %" for e in errors)])
        print(" ".join(rows[-1]), file=sys.stderr, flush=True)
    headers = ["cells are", "cells", "runs", "measured", "corrected"]
    return markdown_table(headers, rows, "lrrrr")


def looked_at(sweeps: int, seed: int) -> str:
    """Return the table of sweeps with `until_decided`: how many blocks they take, and their errors.

    Half of the rows have equal cells. In the others the second cell is 10 % higher.
    """
    rows = []
    for gain, spread, cells in itertools.product((0.0, 0.10), (0.02, 0.05), (2, 6)):
        rng = np.random.default_rng([seed, cells, round(100 * gain), round(1000 * spread)])
        wrong, found, taken = 0, 0, 0
        for _ in range(sweeps):
            values = rng.normal(0, spread, (cells, MOST)) + np.linspace(0, -DRIFT, MOST)
            values[1] += math.log1p(gain)
            verdicts, blocks = _until_decided(values)
            expected = {1: Difference.HIGHER} if gain else {}
            said = {n: kind for n, kind in enumerate(verdicts, 1) if kind in DIFFERENT}
            wrong += any(expected.get(n) is not kind for n, kind in said.items())
            found += said.get(1) is Difference.HIGHER
            taken += blocks
        shares = [percent(wrong / sweeps, 1), percent(found / sweeps, 1) if gain else ""]
        rows.append([percent(gain), percent(spread), str(cells), f"{taken / sweeps:.1f}", *shares])
        print(" ".join(rows[-1]), file=sys.stderr, flush=True)
    headers = ["true difference", "spread", "cells", "blocks", "false statement", "found"]
    return markdown_table(headers, rows, "r" * len(headers))


def _until_decided(values: NDArray[np.float64]) -> tuple[list[Difference], int]:
    """Return the last verdicts against the first cell, and after how many blocks they are."""
    found: list[Difference] = []
    for block in range(FIRST_LOOK, MOST + 1):
        alpha = alpha_of_look(block, MOST, FIRST_LOOK, ALPHA)
        contrasts = compare_cells(values[:, :block], margin=MARGIN, alpha=alpha)
        found = [contrast.difference for contrast in contrasts.against(0)[1:]]
        if Difference.UNKNOWN not in found:
            return found, block
    return found, MOST


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sweeps", type=int, default=1000, help="for each row")
    parser.add_argument("--seed", type=int, default=2029)
    given = parser.parse_args()
    command = f"python -m benchmarks.verdicts {' '.join(sys.argv[1:])}".strip()
    parts = [machine(), f"    {command}"]
    for title, table in (
        ("Sweeps of equal cells with a false statement", false_statements),
        ("How often a difference from the baseline is found", power),
        ("How often two of six cells are called the same within 2 %", same),
        (f"Sweeps with until_decided and at most {MOST} blocks", looked_at),
        ("By how much the best cell's value is too high (spread 5 %)", winner),
    ):
        parts += [f"## {title}", table(given.sweeps, given.seed)]
    text = "\n\n".join(parts)
    print(text)
    outputs_dir().mkdir(exist_ok=True)
    (outputs_dir() / "verdicts.md").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
