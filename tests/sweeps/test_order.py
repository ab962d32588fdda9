"""The order of cells within blocks is random, reproducible and balanced."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from crossbench.sweeps.order import block_order


@pytest.mark.parametrize("cells", [2, 3, 4, 5, 6, 12])
def test_each_cell_is_at_each_place_and_after_each_other_cell_equally_often(cells: int) -> None:
    blocks = cells if cells % 2 == 0 else 2 * cells
    orders = [block_order(cells, block, seed=3) for block in range(blocks)]
    assert all(sorted(order) == list(range(cells)) for order in orders)
    places = Counter(item for order in orders for item in enumerate(order))
    neighbours = Counter(pair for order in orders for pair in pairwise(order))
    assert len(places) == cells**2
    assert len(neighbours) == cells * (cells - 1)
    assert len(set(places.values())) == len(set(neighbours.values())) == 1


def test_two_blocks_cancel_a_drift_within_the_block() -> None:
    first, second = (block_order(7, block, seed=0) for block in (4, 5))
    assert first == second[::-1]


def test_the_order_depends_on_the_seed_and_differs_between_cycles() -> None:
    assert block_order(6, 0, seed=1) == block_order(6, 0, seed=1)
    assert len({tuple(block_order(6, 0, seed)) for seed in range(20)}) > 10
    assert [block_order(6, block, 0) for block in range(6)] != [
        block_order(6, block, 0) for block in range(6, 12)
    ]


def test_one_cell_has_one_order() -> None:
    assert block_order(1, 3, seed=0) == [0]
