"""The sender sends single requests, times and records them. The load decides when."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc

from crossbench.load.requests import RequestSource
from crossbench.load.stop import End, Watch
from crossbench.serving.client import Message, error_message, message_size
from crossbench.serving.endpoint import Endpoint
from crossbench.types import RequestRecord

Observer = Callable[[RequestRecord], None]
OnFailure = Callable[[str, str], object]  # receives a request's status and error message
UNREACHABLE = grpc.StatusCode.UNAVAILABLE.name  # the status if no server answers
RETRY_PAUSE_S = 0.1  # pause after a request that did not reach the server
UNREACHABLE_LIMIT_S = 3.0  # stop sending after the server was unreachable for this time


def loop_time_s() -> float:
    """Return the clock of the running event loop, which also decides when its timers end."""
    return asyncio.get_running_loop().time()


@dataclass
class Sender:
    """Sends the `requests` of one measurement.

    Times are in seconds since `start()`, or since this object was created. A load calls
    `may_send()` or `wait_until(due_s)` before each `send(due_s)`. They allow no more requests once
    `watch` ends the measurement, after `interrupted`, or after the server was unreachable for three
    seconds. They always allow the first request.

    Request i goes to the model `models[i % n]`, or to the server's first model if `models` is
    empty. `records` are in the order of their replies. `on_record` receives every record,
    `on_failure` the status and the error message of every request that failed.
    """

    client: Endpoint
    requests: RequestSource
    timeout_s: float
    watch: Watch
    interrupted: asyncio.Event
    models: Sequence[str] = ()
    on_record: Observer = lambda record: None
    on_failure: OnFailure = lambda status, message: None
    records: list[RequestRecord] = field(default_factory=list, init=False)
    over_saturated: bool = field(default=False, init=False)  # due faster than it could answer
    _end: End | None = field(default=None, init=False)
    _started_s: float = field(default_factory=loop_time_s, init=False)
    _sent: int = field(default=0, init=False)
    _unreachable_since_s: float | None = field(default=None, init=False)

    @property
    def end(self) -> End:
        """Return why no more requests are sent; a schedule's end if nothing else ended them."""
        return self._end or End.SCHEDULE

    def start(self) -> None:
        """Begin the measurement now."""
        self._started_s = loop_time_s()

    def now_s(self) -> float:
        return loop_time_s() - self._started_s

    def may_send(self, due_s: float | None = None) -> bool:
        """Return whether another request, due at `due_s` (None: now), may be sent.

        A request that was due before the end of the measurement may be sent late.
        """
        if self._sent == 0:
            return True
        if self.interrupted.is_set():
            self._end = End.INTERRUPTED
        elif self._end is None:
            self._end = self.watch.end(self._sent, self.now_s() if due_s is None else due_s)
        return self._end is None

    def end_over_saturated(self) -> None:
        """Send no more, because requests are due faster than the server can answer them."""
        self.over_saturated, self._end = True, End.OVER_SATURATED

    async def wait_until(self, due_s: float) -> bool:
        """Wait until a request is due. Returns False immediately if it may not be sent any more.

        Other coroutines get to run even if the due time has already passed.
        """
        if self._sent and not self.may_send(due_s):
            return False
        await asyncio.sleep(0)
        while (left_s := due_s - self.now_s()) > 0 and not self.interrupted.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self.interrupted.wait()
        return self.may_send(due_s)

    def send(self, due_s: float, size: int | None = None) -> Coroutine[Any, Any, RequestRecord]:
        """Send the next request, which was due at `due_s`. Await the result or make it a task.

        The request contains `size` pairs or texts (None: the cell's batch) and counts as sent from
        this call on. Latency starts at `due_s`, so it includes any delay before the request is
        sent. A request that the server rejects gives a record with its status, not an exception.
        """
        index = self._sent
        self._sent += 1
        message = self.requests.take(size)
        if self.models:
            message.model = self.models[index % len(self.models)]
        return self._exchange(message, index, due_s)

    async def _exchange(self, message: Message, index: int, due_s: float) -> RequestRecord:
        tokens: int | None = 0
        truncated: int | None = 0
        tokenize_ms = queue_ms = infer_ms = 0.0
        sent_s = self.now_s()
        try:
            reply = await self.client.send(message, self.timeout_s)
            status = "OK"
            tokens, truncated = reply.tokens, reply.truncated
            stages = reply.timing
            tokenize_ms, queue_ms, infer_ms = stages.tokenize_ms, stages.queue_ms, stages.infer_ms
        except grpc.aio.AioRpcError as error:
            status = error.code().name
            self.on_failure(status, error_message(error))
        record = RequestRecord(
            index=index,
            due_s=due_s,
            sent_s=sent_s,
            received_s=self.now_s(),
            pairs=message_size(message),
            tokens=tokens,
            truncated=truncated,
            tokenize_ms=tokenize_ms,
            queue_ms=queue_ms,
            infer_ms=infer_ms,
            status=status,
        )
        self.records.append(record)
        self.watch.note(record)
        self.on_record(record)
        self._note_server(record)
        if record.status == UNREACHABLE:
            await asyncio.sleep(RETRY_PAUSE_S)
        return record

    def _note_server(self, record: RequestRecord) -> None:
        """End the measurement once the server has been unreachable for UNREACHABLE_LIMIT_S."""
        if record.status != UNREACHABLE:
            self._unreachable_since_s = None
            return
        if self._unreachable_since_s is None:
            self._unreachable_since_s = record.received_s
        if record.received_s - self._unreachable_since_s >= UNREACHABLE_LIMIT_S:
            self._end = End.SERVER_LOST
