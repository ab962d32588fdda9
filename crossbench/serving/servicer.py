"""The RPCs of the service: checks requests, passes them to a model's service and counts them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeAlias

import grpc

from crossbench.errors import (
    CrossbenchError,
    DeadlineExpired,
    InvalidRequest,
    NonFiniteValues,
    QueueFull,
    WrongTask,
)
from crossbench.serving import inference_pb2 as pb
from crossbench.serving import inference_pb2_grpc as pb_grpc
from crossbench.serving.finite import NON_FINITE
from crossbench.serving.server_settings import ServerSettings
from crossbench.serving.service import Answer, ModelService
from crossbench.serving.telemetry import Telemetry
from crossbench.types import Pair

log = logging.getLogger(__name__)

DEFAULT_WATCH_INTERVAL_S = 1.0
WATCH_INTERVALS_S = (0.05, 3600.0)

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class Servicer(pb_grpc.InferenceServicer):
    """Implements the RPCs of crossbench.v1.Inference. The first model is the default."""

    def __init__(
        self,
        services: Mapping[str, ModelService],
        settings: ServerSettings,
        telemetry: Telemetry,
        info: pb.ServerInfo,
    ) -> None:
        self._services = services
        self._settings = settings
        self._telemetry = telemetry
        self.info = info
        self._stopping = asyncio.Event()
        self._max_watchers = settings.connections.max_watchers
        self._watchers = 0

    def end_streams(self) -> None:
        """End all WatchMetrics streams, which would otherwise run for ever."""
        self._stopping.set()

    async def Score(self, request: pb.ScoreRequest, context: Context) -> pb.ScoreResponse:
        query, passages = request.query, list(request.passages)  # each access makes new strings

        async def run(service: ModelService, deadline_s: float | None) -> Answer:
            return await service.score(query, passages, deadline_s)

        def check() -> None:
            self._check_size(len(passages), request.ByteSize(), "passages")
            _check_texts([query], "query")
            _check_texts(passages, "passages")

        return _score_response(await self._answer(request.model, check, run, context))

    async def ScorePairs(self, request: pb.ScorePairsRequest, context: Context) -> pb.ScoreResponse:
        pairs = [Pair(pair.query, pair.passage) for pair in request.pairs]

        async def run(service: ModelService, deadline_s: float | None) -> Answer:
            return await service.score_pairs(pairs, deadline_s)

        def check() -> None:
            self._check_size(len(pairs), request.ByteSize(), "pairs")
            _check_texts([pair.query for pair in pairs], "queries of pairs")
            _check_texts([pair.passage for pair in pairs], "passages of pairs")

        return _score_response(await self._answer(request.model, check, run, context))

    async def Embed(self, request: pb.EmbedRequest, context: Context) -> pb.EmbedResponse:
        texts = list(request.texts)

        async def run(service: ModelService, deadline_s: float | None) -> Answer:
            return await service.embed(texts, deadline_s)

        def check() -> None:
            self._check_size(len(texts), request.ByteSize(), "texts")
            _check_texts(texts, "texts")

        answer = await self._answer(request.model, check, run, context)
        return pb.EmbedResponse(
            values=answer.values.ravel().tolist(),
            dim=answer.values.shape[1],
            timings=_stage_timings(answer),
            tokens=answer.tokens,
            truncated=answer.truncated,
        )

    async def GetInfo(self, request: pb.GetInfoRequest, context: Context) -> pb.ServerInfo:
        return self.info

    async def GetMetrics(self, request: pb.GetMetricsRequest, context: Context) -> pb.Metrics:
        return self._metrics()

    async def WatchMetrics(
        self, request: pb.WatchMetricsRequest, context: Context
    ) -> AsyncIterator[pb.Metrics]:
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

    async def ResetMetrics(
        self, request: pb.ResetMetricsRequest, context: Context
    ) -> pb.ResetMetricsResponse:
        self._telemetry.reset()
        return pb.ResetMetricsResponse()

    async def _answer(
        self,
        model: str,
        check: Callable[[], None],
        run: Callable[[ModelService, float | None], Awaitable[Answer]],
        context: Context,
    ) -> Answer:
        arrived_s = time.perf_counter()
        remaining_s = context.time_remaining()
        deadline_s = None if remaining_s is None else arrived_s + remaining_s
        telemetry = self._telemetry
        telemetry.in_flight += 1
        try:
            check()
            answer = await run(self._service(model), deadline_s)
        except CrossbenchError as error:
            status = _status_of(error)
            telemetry.request_failed(status.name)
            await context.abort(status, str(error))
        except asyncio.CancelledError:
            # gRPC cancels the handler when the client disconnects and when the deadline passes
            expired = deadline_s is not None and time.perf_counter() >= deadline_s
            telemetry.request_failed("DEADLINE_EXCEEDED" if expired else "CANCELLED")
            raise
        except Exception as error:
            log.exception("a request failed")
            telemetry.request_failed("INTERNAL")
            await context.abort(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")
        finally:
            telemetry.in_flight -= 1
        latency_ms = (time.perf_counter() - arrived_s) * 1e3
        telemetry.request_done(
            latency_ms, answer.timing, len(answer.values), answer.tokens, answer.truncated
        )
        return answer

    def _service(self, model: str) -> ModelService:
        if not model:
            return next(iter(self._services.values()))
        if model not in self._services:
            raise InvalidRequest(
                f"this server has no model {model!r}: use one of {', '.join(self._services)}"
            )
        return self._services[model]

    def _check_size(self, count: int, size_bytes: int, what: str) -> None:
        if count == 0:
            raise InvalidRequest(f"the request contains no {what}: send at least one")
        if count > self._settings.max_pairs:
            raise InvalidRequest(
                f"the request contains {count} {what}, the limit is {self._settings.max_pairs}: "
                "split the request, or raise server.max_pairs"
            )
        if size_bytes > self._settings.max_request_bytes:
            raise InvalidRequest(
                f"the request has {size_bytes} bytes, the limit is "
                f"{self._settings.max_request_bytes}: split it, or raise server.max_request_bytes"
            )

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


def _check_texts(texts: Sequence[str], what: str) -> None:
    for index, text in enumerate(texts):
        if not text or text.isspace():
            raise InvalidRequest(f"text {index} of {what} is empty: send text, or omit it")


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
    if isinstance(error, QueueFull):
        return grpc.StatusCode.RESOURCE_EXHAUSTED
    if isinstance(error, DeadlineExpired):
        return grpc.StatusCode.DEADLINE_EXCEEDED
    if isinstance(error, NonFiniteValues):
        return NON_FINITE
    return grpc.StatusCode.INTERNAL
