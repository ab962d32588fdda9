"""Score lists of passages through a server, several requests at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import grpc
import numpy as np

from crossbench.serving import inference_pb2 as pb
from crossbench.serving.client import InferenceClient
from crossbench.types import Float32Array, QueryPassages


@dataclass(frozen=True, slots=True)
class ScoringOptions:
    """Keep `users` requests of up to `batch` pairs in flight, and begin no list after
    `max_seconds`, except the first. `timeout_s` is each request's deadline."""

    users: int
    batch: int
    max_seconds: float
    timeout_s: float


async def score_lists(
    client: InferenceClient,
    lists: Sequence[QueryPassages],
    options: ScoringOptions,
    interrupted: asyncio.Event,
    keep: Callable[[int, Float32Array], None] = lambda index, scores: None,
) -> list[Float32Array]:
    """Scores of the first lists, float32 (n,) each, as many as the options' time allows.

    `keep` gets each list's index and scores as soon as the list is complete.

    Raises:
        grpc.aio.AioRpcError: the server refused or failed.
    """
    started_s = time.perf_counter()
    parts: list[dict[int, Float32Array]] = [{} for _ in lists]
    work = _requests(lists, options.batch)

    failures: list[grpc.aio.AioRpcError] = []

    async def user() -> None:
        for index, start in work:
            # The iterator is shared: what this user takes no other one sees
            late = time.perf_counter() - started_s >= options.max_seconds
            if interrupted.is_set() or (late and start == 0 and index > 0):
                work.close()
                return
            entry = lists[index]
            request = pb.ScoreRequest(
                query=entry.query, passages=entry.passages[start : start + options.batch]
            )
            try:
                parts[index][start] = (await client.send_score(request, options.timeout_s)).scores
            except grpc.aio.AioRpcError as error:
                failures.append(error)
                work.close()
                return
            if sum(map(len, parts[index].values())) == len(entry.passages):
                keep(index, _joined(parts[index]))

    async with asyncio.TaskGroup() as group:
        for _ in range(options.users):
            group.create_task(user())
    if failures:
        raise failures[0]
    done: list[Float32Array] = []
    for entry, found in zip(lists, parts, strict=True):
        if sum(map(len, found.values())) < len(entry.passages):
            break
        done.append(_joined(found))
    return done


def _requests(lists: Sequence[QueryPassages], batch: int) -> Generator[tuple[int, int], None, None]:
    """(index of the list, first passage) of every request, in order."""
    for index, entry in enumerate(lists):
        for start in range(0, len(entry.passages), batch):
            yield index, start


def _joined(parts: dict[int, Float32Array]) -> Float32Array:
    return np.concatenate([parts[start] for start in sorted(parts)])
