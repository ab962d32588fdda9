"""What is sent: a data set's lists, cut into requests in their order, for ever."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, cycle, islice
from typing import Any

from crossbench.errors import ConfigError
from crossbench.serving import inference_pb2 as pb
from crossbench.serving.client import Message, pairs_message
from crossbench.types import Pair, QueryPassages, Task


@dataclass(frozen=True)
class RequestOptions:
    """What all requests of a cell have in common, whatever its load (conf/request.yaml).

    `task` is one of types.Task. `timeout_s` is each request's deadline. `models` says whose they
    are: None for the server's first model, `all` for every model in turn, or a list of turns.

    Raises:
        ConfigError: a value cannot be used.
    """

    task: str
    timeout_s: float
    models: Any

    def __post_init__(self) -> None:
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

    def model_order(self, served: Sequence[str]) -> list[str]:
        """The names of the models that requests are for, one after the other; empty: the first.

        `served` are the server's. A None in the list stands for the first of them.

        Raises:
            ConfigError: the server has no such model.
        """
        if self.models is None:
            return []
        if self.models == "all":
            return list(served)
        names = [served[0] if name is None else str(name) for name in self.models]
        if absent := [name for name in names if name not in served]:
            raise ConfigError(
                f"load.models names {', '.join(absent)}, and this server has {', '.join(served)}: "
                "add what is missing to pool.models"
            )
        return names


class Requests:
    """The endless requests of a cell: after the last list comes the first again.

    A request holds `batch` pairs (texts where the task is to embed) unless its load asks for
    another size. It is a Score where one query has enough passages left, and ScorePairs where it
    spans queries.
    """

    def __init__(self, lists: Sequence[QueryPassages], batch: int, task: Task = Task.SCORE) -> None:
        self._batch = batch
        self._lists = cycle(lists)
        self._list, self._start = next(self._lists), 0
        self._texts = cycle(chain.from_iterable(entry.passages for entry in lists))
        self._make = self._embed if task is Task.EMBED else self._score

    def take(self, size: int | None = None) -> Message:
        """The next request, of `size` pairs or texts; None: of the cell's batch."""
        return self._make(self._batch if size is None else size)

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
            if len(pairs) == size:
                return pairs_message(pairs)
            self._list, self._start = next(self._lists), 0


def first_pairs(lists: Sequence[QueryPassages], count: int) -> Iterator[tuple[str, str]]:
    """The (query, passage) of the first `count` pairs that requests hold, each list's once."""
    return islice(((entry.query, text) for entry in lists for text in entry.passages), count)
