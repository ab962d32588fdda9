"""The clients of the soak: requests of all sizes, deadlines, cancellations, watchers and resets."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import grpc

from benchmarks.known_scores import TOLERANCE, Known
from crossbench.serving import inference_pb2 as pb
from crossbench.serving.client import InferenceClient, Reply

BOUND_S = 60.0  # a request without an end by then is lost
PAUSE_S = 0.03  # between two requests of a client, on average
RESET_S = 20.0
USERS, WATCHERS = 6, 3
KINDS = ("plain", "plain", "plain", "deadline", "tight deadline", "cancelled", "wrong")
# For each kind, the statuses that explain it to the client. A worker that was killed fails its
# requests with INTERNAL, and the message says so.
ENDS = {
    "plain": {"OK", "RESOURCE_EXHAUSTED", "INTERNAL", "UNAVAILABLE"},
    "deadline": {"OK", "RESOURCE_EXHAUSTED", "INTERNAL", "UNAVAILABLE", "DEADLINE_EXCEEDED"},
    "tight deadline": {"OK", "RESOURCE_EXHAUSTED", "INTERNAL", "UNAVAILABLE", "DEADLINE_EXCEEDED"},
    "cancelled": {"OK", "CANCELLED", "RESOURCE_EXHAUSTED", "INTERNAL", "UNAVAILABLE"},
    "wrong": {"INVALID_ARGUMENT"},
}


@dataclass
class Load:
    """Sends requests until stop(). `ends` counts (kind, status)."""

    address: str
    known: Sequence[Known]
    seed: int
    ends: Counter[tuple[str, str]] = field(default_factory=Counter, init=False)
    reasons: Counter[str] = field(default_factory=Counter, init=False)
    lost: list[str] = field(default_factory=list, init=False)
    mixed_up: list[str] = field(default_factory=list, init=False)
    unexplained: list[str] = field(default_factory=list, init=False)
    resets: int = field(default=0, init=False)
    snapshots: int = field(default=0, init=False)
    slowest_s: float = field(default=0.0, init=False)
    _stopped: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    async def run(self) -> None:
        await asyncio.gather(
            *(self._user(number) for number in range(USERS)),
            *(self._watcher(number) for number in range(WATCHERS)),
            self._resetter(),
        )

    def stop(self) -> None:
        self._stopped.set()

    async def _user(self, number: int) -> None:
        rng = random.Random(self.seed * 1000 + number)
        while not self._stopped.is_set():
            # A new connection now and then, as clients come and go
            async with InferenceClient(self.address) as client:
                for _ in range(rng.randint(20, 2000)):
                    if self._stopped.is_set():
                        return
                    await self._request(client, rng)
                    await asyncio.sleep(rng.expovariate(1 / PAUSE_S))

    async def _request(self, client: InferenceClient, rng: random.Random) -> None:
        kind, started_s = rng.choice(KINDS), time.perf_counter()
        item, status = rng.choice(self.known), "OK"
        try:
            async with asyncio.timeout(BOUND_S):
                reply = await self._send(client, rng, kind, item)
            if (difference := item.difference(reply.scores)) > TOLERANCE:
                self.mixed_up.append(f"{item.query!r}: wrong by {difference}")
        except grpc.aio.AioRpcError as error:
            status = error.code().name
            if status == "INTERNAL":
                self.reasons[_reason(error)] += 1
            if status not in ENDS[kind] or not error.details():
                self.unexplained.append(f"{kind}: {status} {error.details()}")
        except asyncio.CancelledError:
            if kind != "cancelled":
                raise
            status = "CANCELLED"
        except TimeoutError:
            status = "lost"
            self.lost.append(f"{kind}, {len(item.passages)} passages")
        self.slowest_s = max(self.slowest_s, time.perf_counter() - started_s)
        self.ends[kind, status] += 1

    async def _send(
        self, client: InferenceClient, rng: random.Random, kind: str, item: Known
    ) -> Reply:
        message: pb.ScoreRequest | pb.ScorePairsRequest
        if rng.random() < 0.5:
            message = pb.ScoreRequest(query=item.query, passages=item.passages)
        else:
            pairs = [pb.Pair(query=item.query, passage=passage) for passage in item.passages]
            message = pb.ScorePairsRequest(pairs=pairs)
        if kind == "wrong":
            wrong = (pb.ScoreRequest(query="q"), pb.ScoreRequest(query=" ", passages=["p"]))
            return await client.send_score(rng.choice(wrong))
        if kind == "cancelled":
            task = asyncio.create_task(client.send_score(message))
            await asyncio.sleep(rng.choice((0.0, rng.uniform(0, 0.05))))
            task.cancel()
            return await task
        timeouts = {"deadline": rng.uniform(5, 20), "tight deadline": rng.uniform(1e-3, 0.03)}
        return await client.send_score(message, timeouts.get(kind))

    async def _watcher(self, number: int) -> None:
        rng = random.Random(self.seed * 2000 + number)

        async def watch() -> None:
            async with InferenceClient(self.address) as client:
                async for _ in client.watch_metrics(rng.choice((0.05, 0.5, 1.0))):
                    self.snapshots += 1

        while not self._stopped.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(rng.uniform(1, 30)):
                    await self._unless_stopped(watch)

    async def _resetter(self) -> None:
        async with InferenceClient(self.address) as client:
            while not self._stopped.is_set():
                await client.reset_metrics()
                self.resets += 1
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopped.wait(), RESET_S)

    async def _unless_stopped(self, work: Callable[[], Awaitable[None]]) -> None:
        task = asyncio.ensure_future(work())
        stopped = asyncio.ensure_future(self._stopped.wait())
        try:
            await asyncio.wait((task, stopped), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
        finally:
            task.cancel()
            stopped.cancel()


def _reason(error: grpc.aio.AioRpcError) -> str:
    """Return the message without the numbers that differ each time."""
    words = (error.details() or "").split()
    return " ".join("N" if word.isdigit() else word for word in words)
