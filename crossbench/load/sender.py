"""The sender: one request at a call, sent, timed and recorded; whatever decides when."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc

from crossbench.load.requests import Requests
from crossbench.serving.client import InferenceClient, Message, error_message, message_size
from crossbench.types import RequestRecord

Observer = Callable[[RequestRecord], None]
OnFailure = Callable[[str, str], object]  # a request's status and the server's words
UNREACHABLE = grpc.StatusCode.UNAVAILABLE.name  # no server answers
RETRY_PAUSE_S = 0.1  # before a user asks a server again that was gone
UNREACHABLE_LIMIT_S = 3.0  # after which it is taken not to come back


@dataclass(frozen=True, slots=True)
class Stop:
    """When to send nothing new: after `requests`, or once `max_seconds` have passed."""

    requests: int
    max_seconds: float


@dataclass
class Sender:
    """Sends the `requests` of one measurement, which starts when this object is made.

    Times are in seconds since that start. A load asks `may_send()` or `wait_until(due_s)` before
    each `send(due_s)`; then nothing is sent beyond `stop`, nor after `interrupted`, nor once the
    server is gone for three seconds. The first request may always be sent.

    Request i goes to the model `models[i % n]`, or to the server's first model if `models` is
    empty. `records` are in the order of their replies. `on_record` receives every record,
    `on_failure` the status and the error message of every request that failed.
    """

    client: InferenceClient
    requests: Requests
    timeout_s: float
    stop: Stop
    interrupted: asyncio.Event
    models: Sequence[str] = ()
    on_record: Observer = lambda record: None
    on_failure: OnFailure = lambda status, message: None
    records: list[RequestRecord] = field(default_factory=list, init=False)
    over_saturated: bool = field(default=False, init=False)
    _started_s: float = field(default_factory=time.perf_counter, init=False)
    _sent: int = field(default=0, init=False)
    _gone_since_s: float | None = field(default=None, init=False)
    _is_gone: bool = field(default=False, init=False)

    def now_s(self) -> float:
        return time.perf_counter() - self._started_s

    def may_send(self, due_s: float | None = None) -> bool:
        """Whether another request may be sent that was due at `due_s`; None: that is due now.

        One that was due before the end may be sent late.
        """
        if self._sent == 0:
            return True
        return (
            self._sent < self.stop.requests
            and (self.now_s() if due_s is None else due_s) < self.stop.max_seconds
            and not self._is_gone
            and not self.over_saturated
            and not self.interrupted.is_set()
        )

    def end_over_saturated(self) -> None:
        """Send nothing more: requests come faster than the server can answer them."""
        self.over_saturated = True

    async def wait_until(self, due_s: float) -> bool:
        """Wait until a request is due; False, at once, where it may not be sent any more.

        Other coroutines run meanwhile, even where the time has passed already.
        """
        if self._sent and due_s >= self.stop.max_seconds:
            return False
        await asyncio.sleep(0)
        while (left_s := due_s - self.now_s()) > 0 and not self.interrupted.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self.interrupted.wait()
        return self.may_send(due_s) and not self.interrupted.is_set()

    def send(self, due_s: float, size: int | None = None) -> Coroutine[Any, Any, RequestRecord]:
        """Send the next request, which was due at `due_s`; await its record, or make it a task.

        It holds `size` pairs or texts, where None is the cell's batch. It counts as sent from this
        call on. Latency counts from `due_s`, so that what holds it back before it is sent is part
        of it. What the server refuses is a record with its status, not an error.
        """
        index = self._sent
        self._sent += 1
        message = self.requests.take(size)
        if self.models:
            message.model = self.models[index % len(self.models)]
        return self._exchange(message, index, due_s)

    async def _exchange(self, message: Message, index: int, due_s: float) -> RequestRecord:
        tokens = truncated = 0
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
        self.on_record(record)
        self._note_server(record)
        if record.status == UNREACHABLE:
            await asyncio.sleep(RETRY_PAUSE_S)
        return record

    def _note_server(self, record: RequestRecord) -> None:
        """A server is gone once requests have found none for so long, and none an answer."""
        if record.status != UNREACHABLE:
            self._gone_since_s = None
            return
        if self._gone_since_s is None:
            self._gone_since_s = record.received_s
        self._is_gone = record.received_s - self._gone_since_s >= UNREACHABLE_LIMIT_S
