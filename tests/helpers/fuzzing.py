"""A storm of wrong calls on a server, while innocent clients check the scores they receive."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field

import grpc

from benchmarks.known_scores import TOLERANCE, Known
from crossbench.serving.client import InferenceClient
from tests.helpers.fuzz_cases import Case

# What a server may answer to a client that did something wrong, or went away
ALLOWED = {
    "OK", "INVALID_ARGUMENT", "FAILED_PRECONDITION", "RESOURCE_EXHAUSTED", "UNIMPLEMENTED",
    "DEADLINE_EXCEEDED", "CANCELLED",
}  # fmt: skip
OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),
    # Huge headers may cost the connection; the next call shall not wait for a second
    ("grpc.initial_reconnect_backoff_ms", 20),
    ("grpc.max_reconnect_backoff_ms", 100),
)
CHANNELS = 6
LATER_REPLY_S = 2.0  # for each reply of a stream after its first


@dataclass
class Storm:
    """Sends cases, at most `at_once` at the same time; each must end within `bound_s`.

    `statuses` counts (kind of case, status). `faults` describes what must not happen.
    """

    address: str
    at_once: int
    bound_s: float
    statuses: Counter[tuple[str, str]] = field(default_factory=Counter, init=False)
    details: dict[tuple[str, str], str] = field(default_factory=dict, init=False)
    faults: list[str] = field(default_factory=list, init=False)
    slowest_s: float = field(default=0.0, init=False)

    async def rage(self, cases: Iterable[Case]) -> None:
        channels = [
            grpc.aio.insecure_channel(self.address, options=OPTIONS) for _ in range(CHANNELS)
        ]
        waiting = enumerate(cases)  # all senders take from it

        async def send_next() -> None:
            for number, case in waiting:
                await self._send(channels[number % CHANNELS], number, case)

        try:
            await asyncio.gather(*(send_next() for _ in range(self.at_once)))
        finally:
            for channel in channels:
                await channel.close()

    @property
    def sent(self) -> int:
        return self.statuses.total()

    async def _send(self, channel: grpc.aio.Channel, number: int, case: Case) -> None:
        started_s = time.perf_counter()
        status, message = "OK", ""
        try:
            async with asyncio.timeout(self.bound_s):
                await _call(channel, case)
        except grpc.aio.AioRpcError as error:
            status, message = error.code().name, error.details() or ""
            if message == "Internal error from Core":
                status = "NOT SENT"  # the client's own, when it writes to a call that has ended
        except TimeoutError:
            status = "HUNG"
        except asyncio.CancelledError:
            status = "CANCELLED"
        except (grpc.aio.UsageError, ValueError, TypeError, grpc.aio.InternalError) as error:
            status, message = "NOT SENT", str(error)  # gRPC's client refused it
        self.slowest_s = max(self.slowest_s, time.perf_counter() - started_s)
        self.statuses[case.kind, status] += 1
        self.details.setdefault((case.kind, status), message[:200])
        if status not in ALLOWED | {"NOT SENT"}:
            sent = [body[:60] for body in case.bodies]
            self.faults.append(
                f"case {number}, {case.kind}, {case.path}: {status} {message} {sent}"
            )


async def _call(channel: grpc.aio.Channel, case: Case) -> None:
    options = {
        "timeout": case.timeout_s,
        "metadata": case.metadata,
        "compression": case.compression,
    }
    if len(case.bodies) != 1:

        async def bodies() -> AsyncIterator[bytes]:
            for body in case.bodies:
                yield body

        call = channel.stream_stream(case.path)(bodies(), **options)
    elif case.replies is not None:
        call = channel.unary_stream(case.path)(case.bodies[0], **options)
    else:
        call = channel.unary_unary(case.path)(case.bodies[0], **options)
    if case.drop_after_s is not None:
        if case.drop_after_s:
            await asyncio.sleep(case.drop_after_s)
        call.cancel()
    if case.replies is None:
        await call
        return
    for number in range(case.replies):
        try:
            async with asyncio.timeout(LATER_REPLY_S if number else None):
                reply = await call.read()
        except TimeoutError:  # a mutated interval may be valid and an hour long
            break
        if reply is grpc.aio.EOF:
            if await call.code() is not grpc.StatusCode.OK:
                raise grpc.aio.AioRpcError(
                    await call.code(), await call.initial_metadata(),
                    await call.trailing_metadata(), await call.details(),
                )  # fmt: skip
            return
    call.cancel()


@dataclass
class Innocents:
    """Clients that send known texts without pause and compare the scores."""

    address: str
    known: Sequence[Known]
    seed: int
    clients: int
    bound_s: float
    statuses: Counter[str] = field(default_factory=Counter, init=False)
    faults: list[str] = field(default_factory=list, init=False)
    slowest_s: float = field(default=0.0, init=False)
    _stopped: bool = field(default=False, init=False)

    async def work(self) -> None:
        await asyncio.gather(*(self._one(number) for number in range(self.clients)))

    def stop(self) -> None:
        self._stopped = True

    async def _one(self, number: int) -> None:
        rng = random.Random(self.seed + number)
        async with InferenceClient(self.address) as client:
            while not self._stopped:
                item, started_s = rng.choice(self.known), time.perf_counter()
                try:
                    async with asyncio.timeout(self.bound_s):
                        reply = await client.score(item.query, item.passages)
                    status, scores = "OK", reply.scores
                    if (difference := item.difference(scores)) > TOLERANCE:
                        self.faults.append(f"{item.query!r} got {scores}, wrong by {difference}")
                except grpc.aio.AioRpcError as error:
                    status = error.code().name
                    if status != "RESOURCE_EXHAUSTED":
                        self.faults.append(f"an innocent client got {status}: {error.details()}")
                except TimeoutError:
                    status = "HUNG"
                    self.faults.append("an innocent client waits for ever")
                self.slowest_s = max(self.slowest_s, time.perf_counter() - started_s)
                self.statuses[status] += 1
                await asyncio.sleep(rng.uniform(0, 0.02))
