"""The requests of a cell: a data set's lists, split into requests in order and repeated."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, cycle, islice, repeat
from typing import Any, Protocol

from crossbench.errors import ConfigError
from crossbench.load.sizes import Sizes
from crossbench.serving import inference_pb2 as pb
from crossbench.serving.client import Message, pairs_message
from crossbench.types import Pair, QueryPassages, Task


@dataclass(frozen=True)
class RequestOptions:
    """Options of every request of a cell (conf/request.yaml).

    `task` is one of types.Task. `timeout_s` is the deadline of each request. `models` selects the
    model of each request: None for the server's first one, `all` for every model in turn, or a list
    of names that is repeated. `sizes` is a distribution of pairs per request (see `Sizes.of`), or
    None if all requests have the cell's batch.

    Raises:
        ConfigError: a value is invalid.
    """

    task: str
    timeout_s: float
    models: Any
    sizes: Any

    def __post_init__(self) -> None:
        _ = self.distribution  # raises if it is invalid
        if self.task not in set(Task):
            raise ConfigError(f"load.task must be one of {', '.join(Task)}, got {self.task!r}")
        if not self.timeout_s > 0:
            raise ConfigError(
                f"load.timeout_s must be a positive number of seconds, got {self.timeout_s}: "
                "give for example load.timeout_s=120"
            )
        chosen = self.models
        named = isinstance(chosen, Sequence) and not isinstance(chosen, str) and len(chosen) > 0
        if not (chosen is None or chosen == "all" or named):
            raise ConfigError(
                f"load.models must be null, all or a list of names, got {chosen!r}: give for "
                "example load.models=all"
            )

    @cached_property
    def distribution(self) -> Sizes | None:
        """The distribution of the sizes, or None if all requests have the cell's batch."""
        return Sizes.of(self.sizes)

    def model_order(self, served: Sequence[str]) -> list[str]:
        """Return the models of consecutive requests. An empty list means the first model.

        `served` are the names of the server's models. None in the list means the first of them.

        Raises:
            ConfigError: the server does not have a model of the list.
        """
        if self.models is None:
            return []
        if self.models == "all":
            return list(served)
        names = [served[0] if name is None else str(name) for name in self.models]
        if absent := [name for name in names if name not in served]:
            raise ConfigError(
                f"load.models contains {', '.join(absent)}, but this server has only "
                f"{', '.join(served)}: add the missing models to pool.models"
            )
        return names


class RequestSource(Protocol):
    """Gives a sender one request after the other."""

    def take(self, size: int | None = None) -> Message:
        """Return the next request, with `size` pairs or texts if the source can choose."""
        ...


class Repeated:
    """The same requests again and again, of which there is at least one."""

    def __init__(self, requests: Sequence[Message]) -> None:
        self._requests = cycle(requests)

    def take(self, size: int | None = None) -> Message:
        """Return a copy of the next request, since its sender may change it."""
        return copy.deepcopy(next(self._requests))


class Requests:
    """An endless sequence of requests, which starts again with the first list after the last one.

    The pairs of each request (or texts if it embeds) come from `sizes`, one number for all or one
    for each, unless the load asks for another size. It is a Score request if all its pairs have the
    same query, and otherwise a ScorePairs request. With `one_query`, every request is a Score
    request of its first pair's query, and has passages of the next lists if its own is too short.
    """

    def __init__(
        self,
        lists: Sequence[QueryPassages],
        sizes: int | Iterator[int],
        task: Task = Task.SCORE,
        *,
        one_query: bool = False,
    ) -> None:
        self._one_query = one_query
        self._sizes = repeat(sizes) if isinstance(sizes, int) else sizes
        self._lists = cycle(lists)
        self._list, self._start = next(self._lists), 0
        self._texts = cycle(chain.from_iterable(entry.passages for entry in lists))
        self._make = self._embed if task is Task.EMBED else self._score

    def take(self, size: int | None = None) -> Message:
        """Return the next request, with `size` pairs or texts (None: the next of `sizes`)."""
        return self._make(next(self._sizes) if size is None else size)

    def _embed(self, size: int) -> Message:
        return pb.EmbedRequest(texts=islice(self._texts, size))

    def _score(self, size: int) -> Message:
        pairs: list[Pair] = []
        while True:
            entry, start = self._list, self._start
            passages = entry.passages[start : start + size - len(pairs)]
            self._start += len(passages)
            if len(passages) == size:
                return pb.ScoreRequest(query=entry.query, passages=passages)
            pairs += [Pair(entry.query, text) for text in passages]
            if len(pairs) == size and self._one_query:
                texts = [pair.passage for pair in pairs]
                return pb.ScoreRequest(query=pairs[0].query, passages=texts)
            if len(pairs) == size:
                return pairs_message(pairs)
            self._list, self._start = next(self._lists), 0


def first_pairs(lists: Sequence[QueryPassages], count: int | None) -> Iterator[tuple[str, str]]:
    """Yield the first `count` (query, passage) of the lists (None: all), each once."""
    return islice(((entry.query, text) for entry in lists for text in entry.passages), count)
