"""Which pairs the quality check scores: the same few lists in every cell."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from crossbench.errors import ConfigError
from crossbench.types import QueryPassages


class Check(Protocol):
    """One choice of conf/quality."""

    name: str

    def choose(self, lists: Sequence[QueryPassages]) -> tuple[QueryPassages, ...]:
        """The lists to score; none: nothing is checked."""
        ...


@dataclass(frozen=True)
class NoCheck:
    """Speed alone."""

    name: str

    def choose(self, lists: Sequence[QueryPassages]) -> tuple[QueryPassages, ...]:
        return ()


@dataclass(frozen=True)
class QualityCheck:
    """How many pairs are scored and for how long.

    `queries` is the most lists with judgements, `unjudged_queries` the most where nobody judged,
    `depth` the most passages of a list from its top; None takes all. After `max_seconds` the
    server, and after `reference_max_seconds` the reference, start no other list. Each request may
    take `timeout_s`.

    Raises:
        ConfigError: a value is not positive.
    """

    name: str
    queries: int | None
    unjudged_queries: int | None
    depth: int | None
    max_seconds: float
    reference_max_seconds: float
    timeout_s: float

    def __post_init__(self) -> None:
        for key in ("queries", "unjudged_queries", "depth"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise ConfigError(f"quality.{key}={value}: give at least 1, or null for all")
        for key in ("max_seconds", "reference_max_seconds", "timeout_s"):
            if not getattr(self, key) > 0:
                raise ConfigError(f"quality.{key}={getattr(self, key)}: give seconds above 0")

    def choose(self, lists: Sequence[QueryPassages]) -> tuple[QueryPassages, ...]:
        """A fixed sample: judged queries where there are any, in the order of their hash.

        The hash makes the first n of the sample a random n of the data set, the same everywhere.
        """
        judged = [entry for entry in lists if is_judged(entry)]
        wanted = self.queries if judged else self.unjudged_queries
        chosen = sorted(judged or lists, key=_place)[:wanted]
        return tuple(_top(entry, self.depth) for entry in chosen)


def is_judged(entry: QueryPassages) -> bool:
    """Whether something relevant was judged for the query."""
    grades = (*(entry.relevance or ()), *entry.other_grades)
    return any(grade is not None and grade > 0 for grade in grades)


def _place(entry: QueryPassages) -> bytes:
    return hashlib.sha256(repr((entry.query_id, entry.query)).encode()).digest()


def _top(entry: QueryPassages, depth: int | None) -> QueryPassages:
    """The list's first passages; what is cut off still counts among what could be found."""
    if depth is None or len(entry.passages) <= depth:
        return entry
    relevance = entry.relevance
    below = [grade for grade in (relevance or ())[depth:] if grade is not None]
    return replace(
        entry,
        passage_ids=entry.passage_ids[:depth],
        passages=entry.passages[:depth],
        relevance=None if relevance is None else relevance[:depth],
        other_grades=(*entry.other_grades, *below),
    )
