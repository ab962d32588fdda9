"""Scores lists of passages with a server, with several requests in flight."""

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
    """`users` requests of up to `batch` pairs are in flight. After `max_seconds` no list is started
    except the first one. `timeout_s` is each request's deadline."""

    users: int
    batch: int
    max_seconds: float
    timeout_s: float


async def score_lists(
    client: InferenceClient,
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
