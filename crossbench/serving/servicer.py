"""The RPCs of the service: checks and decodes messages, and answers them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NoReturn, Protocol, TypeVar

import grpc

from crossbench.errors import CrossbenchError, InvalidRequest
from crossbench.serving import inference_pb2 as pb
from crossbench.serving.intake import Intake, Request, status_of
from crossbench.serving.retry import Metadata, retry_advice
from crossbench.serving.rpcs import SERVICE_NAME, rpc_handlers
from crossbench.serving.service import Answer, ModelService
from crossbench.serving.wire import MessageT, decode
from crossbench.types import Pair
from crossbench.wording import error_text

DEFAULT_WATCH_INTERVAL_S = 1.0
WATCH_INTERVALS_S = (0.05, 3600.0)

TextsT = TypeVar("TextsT", pb.ScoreRequest, pb.ScorePairsRequest, pb.EmbedRequest)
ToldT = TypeVar("ToldT")


class Context(Protocol):
    """What an RPC needs of its call: gRPC's own context has it, and that of other receivers."""

    def time_remaining(self) -> float | None:
        """Return the seconds until the deadline; None if there is none, or it is not known."""
        ...

    async def abort(
        self, code: grpc.StatusCode, details: str, trailing_metadata: Metadata = (), /
    ) -> NoReturn: ...


class Account(Protocol):
    """What a server tells about itself. All methods raise NotServing if it cannot tell."""

    async def info(self) -> pb.ServerInfo: ...

    async def metrics(self) -> pb.Metrics: ...

    async def reset(self) -> None: ...


class OwnAccount:
    """The account of a server in one process."""

    def __init__(self, intake: Intake, info: pb.ServerInfo) -> None:
        self._intake, self._info = intake, info

    async def info(self) -> pb.ServerInfo:
        return self._info

    async def metrics(self) -> pb.Metrics:
        return self._intake.metrics()

    async def reset(self) -> None:
        self._intake.telemetry.reset()


class Servicer:
    """Implements the RPCs of crossbench.v1.Inference.

    They receive the bytes of a request, so that its size is checked before it is decoded, and bytes
    that are no message get a clear error.
    """

    def __init__(self, intake: Intake, max_watchers: int, account: Account) -> None:
        self._intake = intake
        self._account = account
        self._max_watchers = max_watchers
        self._watchers = 0

    def add_to(self, server: grpc.aio.Server) -> None:
        """Register all RPCs."""
        server.add_registered_method_handlers(SERVICE_NAME, rpc_handlers(self))

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
        return await _told(self._account.info(), context)

    async def GetMetrics(self, data: bytes, context: Context) -> pb.Metrics:
        await self._decode(pb.GetMetricsRequest, data, context)
        return await _told(self._account.metrics(), context)

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
            while not self._intake.stopping.is_set():
                yield await _told(self._account.metrics(), context)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(interval_s):
                        await self._intake.stopping.wait()
        finally:
            self._watchers -= 1

    async def ResetMetrics(self, data: bytes, context: Context) -> pb.ResetMetricsResponse:
        await self._decode(pb.ResetMetricsRequest, data, context)
        await _told(self._account.reset(), context)
        return pb.ResetMetricsResponse()

    async def _decode(self, kind: type[MessageT], data: bytes, context: Context) -> MessageT:
        try:
            return decode(kind, data)
        except InvalidRequest as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            raise

    async def _answer(
        self,
        kind: type[TextsT],
        items: str,
        run: Callable[[TextsT, ModelService, float | None], Awaitable[Answer]],
        data: bytes,
        context: Context,
    ) -> Answer:
        """Check and decode a request with repeated `items`, and answer it with `run`."""
        arrived_s = time.perf_counter()
        remaining_s = context.time_remaining()
        deadline_s = None if remaining_s is None else arrived_s + remaining_s
        intake = self._intake

        async def compute() -> Answer:
            intake.limits.check_bytes(data, items)
            message = decode(kind, data)
            request = Request(message.model, len(getattr(message, items)), items, len(data))
            return await intake.admit(
                request, arrived_s, deadline_s, lambda service: run(message, service, deadline_s)
            )

        try:
            # gRPC cancels this when the client disconnects and when the deadline passes
            return await intake.count(compute, arrived_s, deadline_s)
        except CrossbenchError as error:
            await context.abort(status_of(error), str(error), retry_advice(error))
            raise
        except Exception as error:
            await context.abort(grpc.StatusCode.INTERNAL, error_text(error))
            raise

    async def _score(
        self, message: pb.ScoreRequest, service: ModelService, deadline_s: float | None
    ) -> Answer:
        query, passages = message.query, list(message.passages)  # each access makes new strings
        self._intake.limits.check_texts([query], "query")
        self._intake.limits.check_texts(passages, "passages")
        return await service.score(query, passages, deadline_s)

    async def _score_pairs(
        self, message: pb.ScorePairsRequest, service: ModelService, deadline_s: float | None
    ) -> Answer:
        pairs = [Pair(pair.query, pair.passage) for pair in message.pairs]
        self._intake.limits.check_texts([pair.query for pair in pairs], "queries of pairs")
        self._intake.limits.check_texts([pair.passage for pair in pairs], "passages of pairs")
        return await service.score_pairs(pairs, deadline_s)

    async def _embed(
        self, message: pb.EmbedRequest, service: ModelService, deadline_s: float | None
    ) -> Answer:
        texts = list(message.texts)
        self._intake.limits.check_texts(texts, "texts")
        return await service.embed(texts, deadline_s)


async def _told(telling: Awaitable[ToldT], context: Context) -> ToldT:
    """Return what an account tells; if it cannot, end the call with the status of its error."""
    try:
        return await telling
    except CrossbenchError as error:
        await context.abort(status_of(error), str(error))


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
