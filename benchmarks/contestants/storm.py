"""Send requests to a server in phases: closed loops, and storms that do not wait for replies.

    python -m benchmarks.contestants.storm ADDRESS LISTS BATCH

LISTS is a JSON file with a list of [query, [passage, ...]]. Each line of standard input is a JSON
`Phase`; the answer is a line with an `Outcome`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np

from crossbench.serving import inference_pb2 as pb

SCORE = "/crossbench.v1.Inference/Score"
SETTLING_S = 30.0  # how long the last replies may take


@dataclass(frozen=True)
class Phase:
    """Requests for `seconds`: `in_flight` at once, or `per_s` whatever the server does.

    A share of them, `cancelling`, is cancelled after `cancel_s`; the others have a deadline of
    `deadline_s` (None: no deadline).
    """

    seconds: float
    in_flight: int = 0
    per_s: float = 0.0
    deadline_s: float | None = None
    cancelling: float = 0.0
    cancel_s: float = 0.0


@dataclass
class Outcome:
    """How requests ended: statuses by name, and the latencies of answered ones in ms."""

    seconds: float = 0.0
    sent: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    latencies_ms: list[float] = field(default_factory=list)
    late_ms: list[float] = field(default_factory=list)  # how late requests were sent


class Storm:
    """One connection, and requests that were encoded beforehand."""

    def __init__(self, address: str, messages: list[bytes]) -> None:
        options = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
        self._channel = grpc.aio.insecure_channel(address, options=options)
        self._score = self._channel.unary_unary(SCORE)
        self._messages = itertools.cycle(messages)
        self._draw = random.Random(0)

    async def run(self, phase: Phase) -> Outcome:
        outcome = Outcome()
        started_s = time.perf_counter()
        if phase.in_flight:
            users = [self._user(phase, started_s, outcome) for _ in range(phase.in_flight)]
            await asyncio.gather(*users)
        else:
            await self._open(phase, started_s, outcome)
        return outcome

    async def _user(self, phase: Phase, started_s: float, outcome: Outcome) -> None:
        while time.perf_counter() < started_s + phase.seconds:
            await self._send(phase, time.perf_counter(), outcome)
        outcome.seconds = time.perf_counter() - started_s

    async def _open(self, phase: Phase, started_s: float, outcome: Outcome) -> None:
        tasks: set[asyncio.Task[None]] = set()
        due_s = started_s
        while due_s < started_s + phase.seconds:
            due_s += self._draw.expovariate(phase.per_s)
            if (wait_s := due_s - time.perf_counter()) > 0:
                await asyncio.sleep(wait_s)
            outcome.late_ms.append((time.perf_counter() - due_s) * 1e3)
            task = asyncio.create_task(self._send(phase, due_s, outcome))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        outcome.seconds = time.perf_counter() - started_s
        if tasks:
            await asyncio.wait(tasks, timeout=SETTLING_S)

    async def _send(self, phase: Phase, due_s: float, outcome: Outcome) -> None:
        cancels = phase.cancelling > 0 and self._draw.random() < phase.cancelling
        call = self._score(next(self._messages), timeout=None if cancels else phase.deadline_s)
        if cancels:
            asyncio.get_running_loop().call_later(phase.cancel_s, call.cancel)
        outcome.sent += 1
        try:
            await call
        except grpc.aio.AioRpcError as error:
            outcome.statuses[error.code().name] += 1
        except asyncio.CancelledError:
            outcome.statuses["CANCELLED"] += 1
        else:
            outcome.statuses["OK"] += 1
            outcome.latencies_ms.append((time.perf_counter() - due_s) * 1e3)


def answer(outcome: Outcome) -> str:
    """Return the outcome as a line, with percentiles instead of single values."""
    document = dict(vars(outcome))
    for key in ("latencies_ms", "late_ms"):
        values = document.pop(key)
        p50, p99 = np.percentile(values, (50, 99)).tolist() if values else (0.0, 0.0)
        document |= {f"{key}_p50": p50, f"{key}_p99": p99}
    return json.dumps(document)


def encoded(lists: Path, batch: int) -> list[bytes]:
    """Return requests of `batch` passages of one query."""
    return [
        pb.ScoreRequest(query=query, passages=passages[start : start + batch]).SerializeToString()
        for query, passages in json.loads(lists.read_text("utf-8"))
        for start in range(0, len(passages) - batch + 1, batch)
    ]


async def main(address: str, messages: list[bytes]) -> None:
    storm = Storm(address, messages)
    print("ready", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(answer(await storm.run(Phase(**json.loads(line)))), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], encoded(Path(sys.argv[2]), int(sys.argv[3]))))
