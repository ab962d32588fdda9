"""The closed loop: keeps `concurrency` requests in flight and records every one of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc

from crossbench.load.mix import mix_models, wanted_models
from crossbench.serving.client import InferenceClient, Message, message_size, words_of
from crossbench.types import RequestRecord

Observer = Callable[[RequestRecord], None]
Failed = Callable[[str, str], object]  # a request's status and the server's words
GONE = grpc.StatusCode.UNAVAILABLE.name  # no server answers
GONE_PAUSE_S = 0.1  # before a user asks a server again that was gone
GONE_FOR_S = 3.0  # after which it is taken not to come back


@dataclass(frozen=True, slots=True)
class Stop:
    """When to send nothing new: after `requests`, or once `max_seconds` have passed."""

    requests: int
    max_seconds: float


@dataclass(frozen=True)
class ClosedLoop:
    """`concurrency` users, each sending its next request when its last one was answered.

    A request is due the moment its user becomes free, so what the client itself needs to prepare
    it counts as latency. `timeout_s` is each request's deadline. Requests are for the server's
    first model, or take the turns that `models` lists (`all`: every model that is served). `task`
    says what requests ask for: see types.Task.
    """

    name: str
    concurrency: int
    timeout_s: float
    task: str
    models: Any

    async def drive(
        self,
        client: InferenceClient,
        messages: Iterator[Message],
        stop: Stop,
        observe: Observer,
        interrupted: asyncio.Event,
        failed: Failed = lambda status, words: None,
    ) -> list[RequestRecord]:
        """Send until `stop` or `interrupted`; what is in flight then completes and counts.

        The first request is always sent, and no more once the server is gone for three seconds.
        Returns the records in the order of their replies; why one failed goes to `failed`.

        Raises:
            ConfigError: the server has no model of that name.
        """
        if self.models is not None:
            served = [model.name for model in (await client.info()).models]
            messages = mix_models(messages, wanted_models(self.models, served))
        records: list[RequestRecord] = []
        started_s = time.perf_counter()
        sent = 0
        gone_s: float | None = None  # since when no request has found a server

        def may_send() -> bool:
            if sent == 0:
                return True
            now_s = time.perf_counter()
            late = now_s - started_s >= stop.max_seconds
            gone = gone_s is not None and now_s - gone_s >= GONE_FOR_S
            return sent < stop.requests and not late and not gone and not interrupted.is_set()

        async def user() -> None:
            nonlocal sent, gone_s
            while may_send():
                index = sent
                sent += 1
                due_s = time.perf_counter() - started_s
                record = await self._send(client, next(messages), index, due_s, started_s, failed)
                records.append(record)
                observe(record)
                if record.status == GONE:
                    gone_s = gone_s or time.perf_counter()
                    await asyncio.sleep(GONE_PAUSE_S)
                else:
                    gone_s = None

        async with asyncio.TaskGroup() as group:
            for _ in range(self.concurrency):
                group.create_task(user())
        return records

    async def _send(
        self,
        client: InferenceClient,
        message: Message,
        index: int,
        due_s: float,
        started_s: float,
        failed: Failed,
    ) -> RequestRecord:
        pairs = message_size(message)
        tokens = truncated = 0
        tokenize_ms = queue_ms = infer_ms = 0.0
        sent_s = time.perf_counter() - started_s
        try:
            reply = await client.send(message, self.timeout_s)
            status = "OK"
            tokens, truncated = reply.tokens, reply.truncated
            stages = reply.timing
            tokenize_ms, queue_ms, infer_ms = stages.tokenize_ms, stages.queue_ms, stages.infer_ms
        except grpc.aio.AioRpcError as error:
            status = error.code().name
            failed(status, words_of(error))
        received_s = time.perf_counter() - started_s
        return RequestRecord(
            index=index,
            due_s=due_s,
            sent_s=sent_s,
            received_s=received_s,
            pairs=pairs,
            tokens=tokens,
            truncated=truncated,
            tokenize_ms=tokenize_ms,
            queue_ms=queue_ms,
            infer_ms=infer_ms,
            status=status,
        )
