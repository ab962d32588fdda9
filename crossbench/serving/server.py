"""The asyncio gRPC server: checks requests, passes them to a model's service and counts them."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from crossbench.errors import (
    ConfigError,
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
from crossbench.serving.service import Answer, ModelService
from crossbench.serving.telemetry import Telemetry
from crossbench.system.addresses import check_host, join_address, listen_error_message
from crossbench.types import Pair

log = logging.getLogger(__name__)

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["Inference"].full_name
DEFAULT_WATCH_INTERVAL_S = 1.0
WATCH_INTERVALS_S = (0.05, 3600.0)
# The error of gRPC's own size limit gives no advice, so the server checks max_request_bytes itself.
# gRPC's limit is this multiple of it and protects the server's memory from huge messages.
HARD_LIMIT_FACTOR = 16

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """The server's address and limits. `port` 0 means any free port."""

    name: str
    host: str
    port: int
    max_pairs: int
    max_request_bytes: int
    max_queue_pairs: int
    grace_s: float

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"server.port must be 0 (any free port) to 65535, got {self.port}")
        object.__setattr__(self, "host", check_host(self.host, "server"))

    def check_listen(self) -> None:
        """Check that the server can listen, before it loads a model. Binds and releases the port.

        Raises:
            ConfigError: the port is in use or not permitted, or the host is not on this machine.
        """
        try:
            addresses = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
            family, kind, protocol, _, address = addresses[0]
            with socket.socket(family, kind, protocol) as probe:
                # Like gRPC, accept a port that has only connections in TIME_WAIT
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
        except OSError as error:
            raise ConfigError(self._cannot_listen(error)) from error

    def _cannot_listen(self, error: OSError) -> str:
        if error.errno == errno.EADDRINUSE:
            return (
                f"server.port={self.port} is already in use on {self.host}, perhaps by another "
                "`python -m crossbench.serve`: stop that process, or give another server.port, or "
                "server.port=0 for any free port"
            )
        if error.errno == errno.EACCES:
            return (
                f"this user may not listen on server.port={self.port} of {self.host}: give a port "
                "above 1023, or server.port=0 for any free port"
            )
        return listen_error_message("server", self.host, error)


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
        while not self._stopping.is_set():
            yield self._metrics()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(interval_s):
                    await self._stopping.wait()

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


class Server:
    """A gRPC server that runs on the caller's event loop from start() to stop()."""

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
        self._server: grpc.aio.Server | None = None
        self.address = ""

    async def start(self) -> str:
        """Start to listen. Returns HOST:PORT, or [HOST]:PORT for an IPv6 address.

        Raises:
            ConfigError: the port is in use or not permitted, or the host is not on this machine.
        """
        settings = self._settings
        limit = settings.max_request_bytes * HARD_LIMIT_FACTOR
        server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", min(limit, 2**31 - 1)),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),  # two servers on one port must be an error
            ]
        )
        servicer = Servicer(self._services, settings, self._telemetry, self.info)
        pb_grpc.add_InferenceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
        checker = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(checker, server)
        names = (SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
        requested = join_address(settings.host, settings.port)
        try:
            port = server.add_insecure_port(requested)
        except RuntimeError as error:
            settings.check_listen()  # raises an error with the reason
            raise ConfigError(
                f"cannot listen on {requested} ({error}): give another server.host or server.port"
            ) from error
        for service in self._services.values():
            service.start()
        await server.start()
        for name in ("", SERVICE_NAME):
            await checker.set(name, health_pb2.HealthCheckResponse.SERVING)
        self._server, self._servicer, self._checker = server, servicer, checker
        self.address = join_address(settings.host, port)
        return self.address

    def precompute_tokens(self, pairs: Iterable[tuple[str, str]]) -> None:
        """With pipeline=infer, cache the token ids of these (query, passage) for every model.

        Call this before the server starts.
        """
        known = list(pairs)
        for service in self._services.values():
            service.precompute_tokens(known)

    async def stop(self) -> None:
        """Reject new requests, give those in flight `grace_s` to finish, then unload the models."""
        if self._server is not None:
            self._servicer.end_streams()
            await self._checker.enter_graceful_shutdown()
            await self._server.stop(self._settings.grace_s)
        for service in self._services.values():
            await asyncio.to_thread(service.close)
        self._telemetry.usage.close()


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
