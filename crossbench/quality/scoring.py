"""Scores lists of passages with a server, with several requests in flight."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import grpc
import numpy as np

from crossbench.serving import inference_pb2 as pb
from crossbench.serving.client import Reply
from crossbench.serving.endpoint import Endpoint
from crossbench.types import Float32Array, QueryPassages


@dataclass(frozen=True, slots=True)
class ScoringOptions:
    """`users` requests of up to `batch` pairs are in flight, each with the deadline `timeout_s`.

    After `max_seconds` only the first `min_lists` lists are started, and after `longest_s` only the
    first one. A list that was started is scored completely.
    """

    users: int
    batch: int
    max_seconds: float
    min_lists: int
    longest_s: float
    timeout_s: float


async def score_lists(
    client: Endpoint,
    lists: Sequence[QueryPassages],
    options: ScoringOptions,
    interrupted: asyncio.Event,
    on_scored: Callable[[int, Float32Array], None] = lambda index, scores: None,
) -> list[Float32Array]:
    """Return the scores of the first lists, float32 (n,) each, as many as the options allow.

    `on_scored` receives the index and the scores of each list as soon as it is complete.

    Raises:
        grpc.aio.AioRpcError: the server refused or failed.
    """
    started_s = time.perf_counter()
    parts: list[dict[int, Float32Array]] = [{} for _ in lists]
    work = _requests(lists, options.batch)

    failures: list[grpc.aio.AioRpcError] = []

    async def user() -> None:
        for index, start in work:
            # All users share the iterator, so each request is sent once
            seconds = time.perf_counter() - started_s
            enough = 1 if seconds >= options.longest_s else options.min_lists
            late = seconds >= options.max_seconds and index >= max(1, enough)
            if interrupted.is_set() or (late and start == 0):
                work.close()
                return
            entry = lists[index]
            request = pb.ScoreRequest(
                query=entry.query, passages=entry.passages[start : start + options.batch]
            )
            try:
                reply = await client.send(request, options.timeout_s)
            except grpc.aio.AioRpcError as error:
                failures.append(error)
                work.close()
                return
            assert isinstance(reply, Reply), "a score request has scores"
            parts[index][start] = reply.scores
            if sum(map(len, parts[index].values())) == len(entry.passages):
                on_scored(index, _join(parts[index]))

    async with asyncio.TaskGroup() as group:
        for _ in range(options.users):
            group.create_task(user())
    if failures:
        raise failures[0]
    done: list[Float32Array] = []
    for entry, found in zip(lists, parts, strict=True):
        if sum(map(len, found.values())) < len(entry.passages):
            break
        done.append(_join(found))
    return done


def _requests(lists: Sequence[QueryPassages], batch: int) -> Generator[tuple[int, int], None, None]:
    """Yield (index of the list, index of the first passage) for every request, in order."""
    for index, entry in enumerate(lists):
        for start in range(0, len(entry.passages), batch):
            yield index, start


def _join(parts: dict[int, Float32Array]) -> Float32Array:
    return np.concatenate([parts[start] for start in sorted(parts)])
