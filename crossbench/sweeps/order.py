"""The order of the cells in a block, drawn from the seed and balanced over the blocks.

Each pair of blocks is one row of a Williams square and its reverse: each cell is as often early as
late, so that a machine that gets slower or faster within a block treats all cells alike. After n
blocks of an even number n of cells, and after 2n of an odd number, each cell was at each place
equally often, and directly after each other cell equally often.

Source: E. J. Williams (1949), Experimental designs balanced for the estimation of residual effects
of treatments, Australian Journal of Scientific Research A 2, 149-168.
"""

from __future__ import annotations

import random


def block_order(cells: int, block: int, seed: int) -> list[int]:
    """Return the indices of `cells` cells in the order of the block with the index `block`."""
    if cells < 2:
        return list(range(cells))
    rows = cells // 2 if cells % 2 == 0 else cells
    cycle, place = divmod(block // 2, rows)
    chance = random.Random(f"{seed}/{cycle}")  # a text, so that each cycle has a draw of its own  # nosec B311  # an order
    names = chance.sample(range(cells), cells)
    shift = chance.sample(range(rows), rows)[place]
    zigzag = [index // 2 if index % 2 == 0 else cells - 1 - index // 2 for index in range(cells)]
    row = [names[(number + shift) % cells] for number in zigzag]
    return row[::-1] if block % 2 else row
