"""How often the ranking's verdicts are wrong, and how often they are given, on simulated queries.

    python -m benchmarks.keeps [--simulations 2000] [--seed 2027]

Each simulation draws the reference's nDCG@10 of some queries and changes it. The losses are true
means over all possible queries, so a sample may contain none of the queries that lose. Methods and
constants were chosen on other seeds than 2027. Writes outputs/keeps.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from crossbench.measure.bootstrap import bootstrap_means
from crossbench.measure.ranking import KEPT, MIN_QUERIES, shows_kept, shows_loss
from crossbench.measure.ranking_metrics import highest_change
from crossbench.report.tables import markdown_table
from crossbench.settings.places import outputs_dir
from crossbench.wording import percent

SEED = 2027  # preregistered: nothing was changed after this seed was used
FEW = (10, 22, 33, 43)  # queries
MANY = (100, 300, 600, 1000, 3000)
_AT_ONCE = 100  # simulations that are resampled together, which limits memory

Float64Array = NDArray[np.float64]
Rng = np.random.Generator


@dataclass(frozen=True, slots=True)
class Change:
    """What a cell does to the queries' nDCG@10: `apply` maps the reference's (n,) to the cell's.

    `mean` is the true relative change of the mean nDCG@10.
    """

    name: str
    mean: float
    apply: Callable[[Float64Array, Rng], Float64Array]


def share_times(share: float, factor: float) -> Callable[[Float64Array, Rng], Float64Array]:
    """Return the change that multiplies the nDCG of a random share of the queries by a factor."""

    def apply(ndcg: Float64Array, rng: Rng) -> Float64Array:
        changed = rng.random(len(ndcg)) < share
        return np.where(changed, factor, 1.0) * ndcg

    return apply


def share_to_ideal(share: float, loss: float) -> Callable[[Float64Array, Rng], Float64Array]:
    """Return the change that makes a share of the queries ideal; all others lose a share."""

    def apply(ndcg: Float64Array, rng: Rng) -> Float64Array:
        return np.where(rng.random(len(ndcg)) < share, 1.0, (1 - loss) * ndcg)

    return apply


def noise(loss: float, spread: float) -> Callable[[Float64Array, Rng], Float64Array]:
    """Return the change that multiplies by 1 - loss, plus or minus `spread` with equal chances.

    The spread is smaller where nDCG would exceed 1, so that the mean loss is exact.
    """

    def apply(ndcg: Float64Array, rng: Rng) -> Float64Array:
        kept = (1 - loss) * ndcg
        largest = np.minimum(np.minimum(kept, 1 - kept), spread)
        signs: Float64Array = rng.choice([-1.0, 1.0], len(ndcg))
        return kept + largest * signs

    return apply


_LIMIT = 1 - KEPT
LOSSES = (
    Change("5 % of the queries lose 40 %", -0.02, share_times(0.05, 0.6)),
    Change("1.05 % of the queries lose everything", -0.0105, share_times(0.0105, 0.0)),
    Change("10 % lose 10.5 %", -0.0105, share_times(0.10, 0.895)),
    Change("half lose 2.1 %", -0.0105, share_times(0.5, 0.979)),
    Change("every query loses 1.05 %", -0.0105, noise(0.0105, 0.0)),
    Change("gains and losses of 0.05", -0.0105, noise(0.0105, 0.05)),
    Change("gains and losses of 0.2", -0.0105, noise(0.0105, 0.2)),
)
HARMLESS = (
    Change("nothing changes", 0.0, share_times(0.0, 1.0)),
    Change("gains and losses of 0.02", 0.0, noise(0.0, 0.02)),
    Change("gains and losses of 0.05", 0.0, noise(0.0, 0.05)),
    Change("gains and losses of 0.1", 0.0, noise(0.0, 0.1)),
    Change("5 % of the queries lose 4 %", -0.002, share_times(0.05, 0.96)),
)
NO_LOSS = (
    *HARMLESS[:4],
    Change("exactly at the margin: every query loses 1 %", -_LIMIT, noise(_LIMIT, 0.0)),
    Change("exactly at the margin, gains and losses of 0.05", -_LIMIT, noise(_LIMIT, 0.05)),
    Change("exactly at the margin, gains and losses of 0.2", -_LIMIT, noise(_LIMIT, 0.2)),
    Change("exactly at the margin: 2.5 % lose 40 %", -_LIMIT, share_times(0.025, 0.6)),
)
# 5 / 7 is the mean of the reference's nDCG
RARE_GAIN = (
    Change(
        "5 % of the queries become ideal, the others lose 2.1 %",
        0.05 * (7 / 5 - 1) - 0.95 * 0.021,
        share_to_ideal(0.05, 0.021),
    ),
)
SHOWN = (
    Change("every query loses 5 %, gains and losses of 0.1", -0.05, noise(0.05, 0.1)),
    Change("every query loses 10 %, gains and losses of 0.1", -0.10, noise(0.10, 0.1)),
    Change("every query loses 30 %, gains and losses of 0.2", -0.30, noise(0.30, 0.2)),
    Change("5 % of the queries lose 40 %", -0.02, share_times(0.05, 0.6)),
)


def simulate(change: Change, n: int, simulations: int, rng: Rng) -> tuple[Float64Array, ...]:
    """Return nDCG@10 of the cell and of the reference, each (simulations, n)."""
    reference = rng.beta(5, 2, (simulations, n))
    served = np.stack([change.apply(row, rng) for row in reference])
    return served, reference


def keeps_share(change: Change, n: int, simulations: int, rng: Rng) -> float:
    """Return how often `keeps` is said."""
    served, reference = simulate(change, n, simulations, rng)
    pairs = zip(served, reference, strict=True)
    return sum(shows_kept(*pair) for pair in pairs) / simulations


def bootstrap_keeps_share(change: Change, n: int, simulations: int, rng: Rng) -> float:
    """Return how often the earlier rule said `keeps`: the whole bootstrap interval is kept."""
    served, reference = simulate(change, n, simulations, rng)
    # The low end of a loss is the high end of the gain of the other ratio
    ends = highest_changes(reference, served)
    return sum(1 / (1 + end) >= KEPT for end in ends) / simulations


def changes_share(change: Change, n: int, simulations: int, rng: Rng) -> float:
    """Return how often `changes` is said."""
    ends = highest_changes(*simulate(change, n, simulations, rng))
    return sum(map(shows_loss, ends)) / simulations


def highest_changes(served: Float64Array, reference: Float64Array) -> list[float]:
    """Return the high end of the change's interval for each simulation.

    All simulations use the same draws, as all cells of a sweep do.
    """
    n, ends = served.shape[1], []
    for start in range(0, len(served), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        means = bootstrap_means(np.concatenate([served[part], reference[part]]).T, seed=0)
        count = means.shape[1] // 2
        for number in range(count):
            end = highest_change(means[:, number], means[:, count + number], n)
            assert end is not None
            ends.append(end)
    return ends


Share = Callable[[Change, int, int, Rng], float]


def table(
    changes: Sequence[Change], counts: Sequence[int], share: Share, simulations: int, seed: int
) -> str:
    rows = [
        [
            change.name,
            percent(change.mean, 2, signed=True),
            *(
                percent(share(change, n, simulations, np.random.default_rng([seed, row, n])), 1)
                for n in counts
            ),
        ]
        for row, change in enumerate(track(changes, "simulations"))
    ]
    headers = ["change of nDCG@10", "true mean", *(f"{n:,} queries" for n in counts)]
    return markdown_table(headers, rows, "l" + "r" * (1 + len(counts)))


def tables(simulations: int, seed: int) -> Mapping[str, str]:
    few = max(1, simulations // 4)
    return {
        "`keeps`, said wrongly: the mean loss is beyond the margin of 1 %": table(
            LOSSES, (*FEW, *MANY), keeps_share, simulations, seed
        ),
        "The earlier rule (bootstrap interval) for the same losses": table(
            LOSSES, FEW, bootstrap_keeps_share, simulations, seed
        ),
        "`keeps`, said rightly: power": table(HARMLESS, (*FEW, *MANY), keeps_share, few, seed),
        f"`changes`, said wrongly: the loss is within the margin (from {MIN_QUERIES} queries on)": (
            table(NO_LOSS, FEW, changes_share, simulations, seed)
        ),
        "`changes` if the sample misses rare large gains, which the test does not allow for": table(
            RARE_GAIN, FEW, changes_share, simulations, seed
        ),
        "`changes`, said rightly: power": table(SHOWN, FEW, changes_share, few, seed),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--simulations", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args()
    head = (
        f"{options.simulations:,} simulations (a quarter of them for power), seed {options.seed}. "
        "The reference's nDCG@10 has the distribution Beta(5, 2)."
    )
    parts = [f"## {title}\n\n{text}" for title, text in tables(**vars(options)).items()]
    text = "\n\n".join([head, *parts])
    print(text)
    (outputs_dir() / "keeps.md").write_text(f"{text}\n", "utf-8")


if __name__ == "__main__":
    main()
