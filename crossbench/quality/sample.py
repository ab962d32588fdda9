"""The sample of lists that the quality check scores, which is the same in every cell."""

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
        """Return the lists to score. If there are none, nothing is checked."""
        ...


@dataclass(frozen=True)
class NoCheck:
    """No check: measure only speed."""

    name: str

    def choose(self, lists: Sequence[QueryPassages]) -> tuple[QueryPassages, ...]:
        return ()


@dataclass(frozen=True)
class QualityCheck:
    """The size of the sample and the time limits.

    `queries` is the maximum number of judged lists. If no list is judged, `unjudged_queries` is the
    maximum number of lists. `depth` is the maximum number of passages from the top of a list. None
    means no limit. After `max_seconds` the cell's server starts no other list if it has started
    `min_queries` of them, and after `longest_seconds` (or `max_seconds`, if longer) in any case.
    After `reference_max_seconds` the reference starts no other list. `timeout_s` is the deadline of
    each request.

    Raises:
        ConfigError: a value is not positive.
    """

    name: str
    queries: int | None
    unjudged_queries: int | None
    depth: int | None
    min_queries: int
    max_seconds: float
    longest_seconds: float
    reference_max_seconds: float
    timeout_s: float

    def __post_init__(self) -> None:
        for key in ("queries", "unjudged_queries", "depth"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise ConfigError(f"quality.{key}={value}: give at least 1, or null for all")
        if self.min_queries < 1:
            raise ConfigError(f"quality.min_queries={self.min_queries}: give at least 1")
        for key in ("max_seconds", "longest_seconds", "reference_max_seconds", "timeout_s"):
            if not getattr(self, key) > 0:
                raise ConfigError(
                    f"quality.{key}={getattr(self, key)}: give a positive number of seconds"
                )

    def choose(self, lists: Sequence[QueryPassages]) -> tuple[QueryPassages, ...]:
        """Return a fixed sample, in the order of the queries' hashes.

        The sample contains only judged queries if there are any. The order by hash makes its first
        n lists a random selection of the data set that is the same on all machines.
        """
        judged = [entry for entry in lists if is_judged(entry)]
        limit = self.queries if judged else self.unjudged_queries
        chosen = sorted(judged or lists, key=_hash)[:limit]
        return tuple(_top(entry, self.depth) for entry in chosen)


def is_judged(entry: QueryPassages) -> bool:
    """Return whether the query has a relevant passage."""
    grades = (*(entry.relevance or ()), *entry.other_grades)
    return any(grade is not None and grade > 0 for grade in grades)


def _hash(entry: QueryPassages) -> bytes:
    return hashlib.sha256(repr((entry.query_id, entry.query)).encode()).digest()


def _top(entry: QueryPassages, depth: int | None) -> QueryPassages:
    """Return the list's first passages. The grades of the others become `other_grades`."""
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
