"""Which machine measures which cell next: pure decisions, without any cluster.

The cells of a unit are measured one after the other on one machine. With repeats, a unit is a
block, so that cells are compared on the same machine; without, it is a single cell.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Unit:
    waiting: deque[int]
    owner: str | None = None  # the machine that measures it
    lost_by: set[str] = field(default_factory=set)  # machines that were lost with its first cell


class Placement:
    """Gives cells, by their numbers, to machines that are idle.

    A cell whose machine is lost is given to another one, at most `tries` times in all.
    """

    def __init__(self, units: Iterable[Sequence[int]], tries: int) -> None:
        self.tries = tries
        self._units = [_Unit(deque(unit)) for unit in units]
        self._unit_of = {number: unit for unit in self._units for number in unit.waiting}
        self._losses = dict.fromkeys(self._unit_of, 0)

    @property
    def waiting(self) -> list[int]:
        """The cells that no machine has."""
        return [number for unit in self._units for number in unit.waiting]

    def next(self, machine: str, others: bool = True) -> int | None:
        """Return the cell that this idle machine measures next; None if it has to wait.

        Its own block comes first. `others`: there are other machines, so that a cell that was lost
        with this one is left to them.
        """
        for unit in sorted(self._units, key=lambda unit: unit.owner != machine):
            mine = unit.owner in (None, machine)
            if unit.waiting and mine and not (others and machine in unit.lost_by):
                unit.owner = machine
                unit.lost_by.clear()
                return unit.waiting.popleft()
        return None

    def next_unit(self) -> list[int]:
        """Return all cells of the first unit that waits, for one machine; empty if none waits."""
        unit = next((unit for unit in self._units if unit.waiting), None)
        if unit is None:
            return []
        numbers = list(unit.waiting)
        unit.waiting.clear()
        return numbers

    def give_back(self, numbers: Iterable[int]) -> None:
        """Take back the last cells of a unit, which were not begun."""
        for number in numbers:
            self._unit_of[number].waiting.append(number)

    def lose(self, number: int, machine: str) -> bool:
        """Take a cell back whose machine is lost; return whether it is tried once more.

        The rest of its block goes to another machine too.
        """
        unit = self._unit_of[number]
        unit.owner = None
        self._losses[number] += 1
        if self._losses[number] >= self.tries:
            return False
        unit.lost_by.add(machine)
        unit.waiting.appendleft(number)
        return True

    def keep_only(self, machines: Collection[str]) -> None:
        """Give the blocks of machines that are gone to others."""
        for unit in self._units:
            if unit.owner not in machines:
                unit.owner = None

    def give_up(self) -> list[int]:
        """Remove and return the cells that no machine has."""
        numbers = self.waiting
        for unit in self._units:
            unit.waiting.clear()
        return numbers
