"""The RPCs of the service: checks requests, passes them to a model's service and counts them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from operator import methodcaller
from typing import Any, TypeAlias

import grpc

from crossbench.errors import (
    CrossbenchError,
    DeadlineExpired,
    InvalidRequest,
    NonFiniteValues,
    NotServing,
    OutOfMemory,
    QueueFull,
    WrongTask,
)
from crossbench.serving import inference_pb2 as pb
from crossbench.serving.admission import Admission
from crossbench.serving.finite import NON_FINITE
from crossbench.serving.limits import RequestLimits
from crossbench.serving.pool import SHUTTING_DOWN
from crossbench.serving.retry import retry_advice
from crossbench.serving.server_settings import ServerSettings
from crossbench.serving.service import Answer, ModelService, shortened
from crossbench.serving.telemetry import Telemetry
from crossbench.serving.wire import MessageT, decode
from crossbench.types import Pair
from crossbench.wording import error_text

log = logging.getLogger(__name__)

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["Inference"].full_name
DEFAULT_WATCH_INTERVAL_S = 1.0
WATCH_INTERVALS_S = (0.05, 3600.0)

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class Servicer:
    """Implements the RPCs of crossbench.v1.Inference. The first model is the default.

    They receive the bytes of a request, so that its size is checked before it is decoded, and bytes
    that are no message get a clear error.
    """

    def __init__(
        self,
        services: Mapping[str, ModelService],
        settings: ServerSettings,
        telemetry: Telemetry,
        info: pb.ServerInfo,
    ) -> None:
        self._services = services
        self._limits = RequestLimits(settings)
        self._admissions = {
            name: Admission(service.pool, service.tokenizing, settings, service.model.max_length)
            for name, service in services.items()
        }
        self._telemetry = telemetry
        self.info = info
        self._stopping = asyncio.Event()
        self._max_watchers = settings.connections.max_watchers
        self._watchers = 0

    def add_to(self, server: grpc.aio.Server) -> None:
        """Register all RPCs."""
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        for method in pb.DESCRIPTOR.services_by_name["Inference"].methods:
            streams = method.server_streaming
            make = (
                grpc.unary_stream_rpc_method_handler
                if streams
                else grpc.unary_unary_rpc_method_handler
            )
            handlers[method.name] = make(
                getattr(self, method.name), response_serializer=methodcaller("SerializeToString")
            )
        server.add_registered_method_handlers(SERVICE_NAME, handlers)

    def drain(self) -> None:
        """Refuse new requests, and end all WatchMetrics streams, which would run for ever."""
        self._stopping.set()

    async def Score(self, data: bytes, context: Context) -> pb.ScoreResponse:
        answer = await self._answer(pb.ScoreRequest, "passages", self._score, data, context)
        return _score_response(answer)

    async def ScorePairs(self, data: bytes, context: Context) -> pb.ScoreResponse:
        answer = await self._answer(pb.ScorePairsRequest, "pairs", self._score_pairs, data, context)
        return _score_response(answer)

    async def Embed(self, data: bytes, context: Context) -> pb.EmbedResponse:
        answer = await self._answer(pb.EmbedRequest, "texts", self._embed, data, context)
        return pb.EmbedResponse(
            values=answer.values.ravel().tolist(),
            dim=answer.values.shape[1],
            timings=_stage_timings(answer),
            tokens=answer.tokens,
            truncated=answer.truncated,
        )

    async def GetInfo(self, data: bytes, context: Context) -> pb.ServerInfo:
        await self._decode(pb.GetInfoRequest, data, context)
        return self.info

    async def GetMetrics(self, data: bytes, context: Context) -> pb.Metrics:
        await self._decode(pb.GetMetricsRequest, data, context)
        return self._metrics()

    async def WatchMetrics(self, data: bytes, context: Context) -> AsyncIterator[pb.Metrics]:
        request = await self._decode(pb.WatchMetricsRequest, data, context)
        interval_s = request.interval_s or DEFAULT_WATCH_INTERVAL_S
        # NaN, which would stop all timers of the event loop, also fails this comparison
        if not WATCH_INTERVALS_S[0] <= interval_s <= WATCH_INTERVALS_S[1]:
            least, most = WATCH_INTERVALS_S
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"interval_s must be {least:g} to {most:g} seconds, got {interval_s}: give a value "
                f"in this range, or 0 for the default of {DEFAULT_WATCH_INTERVAL_S:g} s",
            )
        if self._watchers >= self._max_watchers:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"{self._watchers} clients watch this server already, the limit is "
                f"{self._max_watchers}: end one of them, or raise server.connections.max_watchers",
            )
        self._watchers += 1
        try:
            while not self._stopping.is_set():
                yield self._metrics()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(interval_s):
                        await self._stopping.wait()
        finally:
            self._watchers -= 1

    async def ResetMetrics(self, data: bytes, context: Context) -> pb.ResetMetricsResponse:
        await self._decode(pb.ResetMetricsRequest, data, context)
        self._telemetry.reset()
        return pb.ResetMetricsResponse()

    async def _decode(self, kind: type[MessageT], data: bytes, context: Context) -> MessageT:
        try:
            return decode(kind, data)
        except InvalidRequest as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            raise

    async def _answer(
        self,
        kind: type[MessageT],
        items: str,
        run: Callable[[MessageT, ModelService, float | None], Awaitable[Answer]],
        data: bytes,
        context: Context,
    ) -> Answer:
        """Check and decode a request with repeated `items`, and answer it with `run`."""
        arrived_s = time.perf_counter()
        remaining_s = context.time_remaining()
        deadline_s = None if remaining_s is None else arrived_s + remaining_s
        telemetry = self._telemetry
        if self._stopping.is_set():
            telemetry.request_failed(grpc.StatusCode.UNAVAILABLE.name)
            await context.abort(grpc.StatusCode.UNAVAILABLE, SHUTTING_DOWN)
        telemetry.in_flight += 1
        try:
            self._limits.check_bytes(data, items)
            message = decode(kind, data)
            count = len(getattr(message, items))
            self._limits.check_count(count, items)
            service, admission = self._service(message)
            admission.check(count, len(data), deadline_s, arrived_s)
            answer = await run(message, service, deadline_s)
            admission.learn(len(data), answer.tokens)
        except CrossbenchError as error:
            status = _status_of(error)
            telemetry.request_failed(status.name)
            await context.abort(status, str(error), retry_advice(error))
            raise
        except asyncio.CancelledError:
            # gRPC cancels the handler when the client disconnects and when the deadline passes
            expired = deadline_s is not None and time.perf_counter() >= deadline_s
            telemetry.request_failed("DEADLINE_EXCEEDED" if expired else "CANCELLED")
            raise
        except Exception as error:
            log.exception("a request failed")
            telemetry.request_failed("INTERNAL")
            await context.abort(grpc.StatusCode.INTERNAL, error_text(error))
            raise
        finally:
            telemetry.in_flight -= 1
        latency_ms = (time.perf_counter() - arrived_s) * 1e3
        telemetry.request_done(
            latency_ms, answer.timing, len(answer.values), answer.tokens, answer.truncated
        )
        return answer

    async def _score(
        self, message: pb.ScoreRequest, service: ModelService, deadline_s: float | None
    ) -> Answer:
        query, passages = message.query, list(message.passages)  # each access makes new strings
        self._limits.check_texts([query], "query")
        self._limits.check_texts(passages, "passages")
        return await service.score(query, passages, deadline_s)

    async def _score_pairs(
        self, message: pb.ScorePairsRequest, service: ModelService, deadline_s: float | None
    ) -> Answer:
        pairs = [Pair(pair.query, pair.passage) for pair in message.pairs]
        self._limits.check_texts([pair.query for pair in pairs], "queries of pairs")
        self._limits.check_texts([pair.passage for pair in pairs], "passages of pairs")
        return await service.score_pairs(pairs, deadline_s)

    async def _embed(
        self, message: pb.EmbedRequest, service: ModelService, deadline_s: float | None
    ) -> Answer:
        texts = list(message.texts)
        self._limits.check_texts(texts, "texts")
        return await service.embed(texts, deadline_s)

    def _service(self, message: Any) -> tuple[ModelService, Admission]:
        """Return the service of the model that a request names; the first one by default."""
        name = message.model or next(iter(self._services))
        if name not in self._services:
            raise InvalidRequest(
                f"this server has no model {shortened(name)}: use one of "
                f"{', '.join(self._services)}"
            )
        return self._services[name], self._admissions[name]

    def _metrics(self) -> pb.Metrics:
        metrics = self._telemetry.snapshot()
        services = self._services.values()
        metrics.queue_pairs = sum(service.pool.waiting for service in services)
        memories = [replica.memory() for service in services for replica in service.replicas]
        current = [m.current_mb for m in memories if m.current_mb is not None]
        peak = [m.peak_mb for m in memories if m.peak_mb is not None]
        if current:
            metrics.device_memory_mb = sum(current)
        if peak:
            metrics.device_memory_peak_mb = sum(peak)
        return metrics


def _score_response(answer: Answer) -> pb.ScoreResponse:
    return pb.ScoreResponse(
        scores=answer.values.tolist(),
        timings=_stage_timings(answer),
        tokens=answer.tokens,
        truncated=answer.truncated,
    )


def _stage_timings(answer: Answer) -> pb.StageTimings:
    timing = answer.timing
    return pb.StageTimings(
        tokenize_ms=timing.tokenize_ms, queue_ms=timing.queue_ms, infer_ms=timing.infer_ms
    )


def _status_of(error: CrossbenchError) -> grpc.StatusCode:
    if isinstance(error, InvalidRequest):
        return grpc.StatusCode.INVALID_ARGUMENT
    if isinstance(error, WrongTask):
        return grpc.StatusCode.FAILED_PRECONDITION
    if isinstance(error, QueueFull | OutOfMemory):
        return grpc.StatusCode.RESOURCE_EXHAUSTED
    if isinstance(error, NotServing):
        return grpc.StatusCode.UNAVAILABLE
    if isinstance(error, DeadlineExpired):
        return grpc.StatusCode.DEADLINE_EXCEEDED
    if isinstance(error, NonFiniteValues):
        return NON_FINITE
    return grpc.StatusCode.INTERNAL
