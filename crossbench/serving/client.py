"""A client of the Inference service: text in, NumPy scores and stage timings out."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import grpc
import numpy as np

from crossbench.serving import inference_pb2 as pb
from crossbench.serving import inference_pb2_grpc as pb_grpc
from crossbench.serving.finite import NON_FINITE, count_non_finite
from crossbench.system.addresses import is_this_machine, join_address, reachable_host, split_address
from crossbench.types import Float32Array, Pair, Timing
from crossbench.wording import counted

Message = pb.ScoreRequest | pb.ScorePairsRequest | pb.EmbedRequest


@dataclass(frozen=True, slots=True)
class Reply:
    """Scores float32 (n,) in the request's order; the stages' timings; real tokens."""

    scores: Float32Array
    timing: Timing
    tokens: int
    truncated: int


@dataclass(frozen=True, slots=True)
class Vectors:
    """Embeddings float32 (n, dim) in the request's order; the rest as in a Reply."""

    vectors: Float32Array
    timing: Timing
    tokens: int
    truncated: int


class InferenceClient:
    """One channel to `address` (HOST:PORT), for use on one event loop.

    A proxy that the environment names (http_proxy, no_proxy) is used for other machines alone.
    Every call raises grpc.aio.AioRpcError with the server's status code and words. A reply whose
    values or timings are NaN or infinite raises one with the status NON_FINITE, whoever sent it,
    and a reply without a score or a vector for each text one with INTERNAL.

    Raises:
        ConfigError: `address` is not HOST:PORT.
    """

    def __init__(self, address: str) -> None:
        host, port = split_address(address, "server.address")
        # A pool of its own: connections are not shared with other clients of this process
        # How large a message may be is the server's to say: a thousand vectors pass gRPC's 4 MB
        options = [
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", -1),
            # gRPC would send loopback through the proxy too, where nobody knows this server
            ("grpc.enable_http_proxy", 0 if is_this_machine(host) else 1),
        ]
        target = join_address(reachable_host(host), port)
        self._channel = grpc.aio.insecure_channel(target, options=options)
        self._stub = pb_grpc.InferenceStub(self._channel)  # type: ignore[no-untyped-call]

    async def __aenter__(self) -> InferenceClient:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._channel.close()

    async def ready(self, timeout_s: float) -> None:
        """Wait until the server answers; TimeoutError when it does not within `timeout_s`."""
        await self._stub.GetInfo(pb.GetInfoRequest(), wait_for_ready=True, timeout=timeout_s)

    async def score(self, query: str, passages: Sequence[str], model: str | None = None) -> Reply:
        return await self.send_score(pb.ScoreRequest(query=query, passages=passages, model=model))

    async def score_pairs(self, pairs: Sequence[Pair], model: str | None = None) -> Reply:
        return await self.send_score(pairs_message(pairs, model))

    async def embed(self, texts: Sequence[str], model: str | None = None) -> Vectors:
        return await self._embed(pb.EmbedRequest(texts=texts, model=model))

    async def send(self, message: Message, timeout_s: float | None = None) -> Reply | Vectors:
        """Send a prepared request by the RPC that is made for it."""
        if isinstance(message, pb.EmbedRequest):
            return await self._embed(message, timeout_s)
        return await self.send_score(message, timeout_s)

    async def _embed(self, message: pb.EmbedRequest, timeout_s: float | None = None) -> Vectors:
        response: pb.EmbedResponse = await self._stub.Embed(message, timeout=timeout_s)
        flat, texts = np.array(response.values, dtype=np.float32), len(message.texts)
        if not response.dim or len(flat) != texts * response.dim:
            raise _bad_reply(
                grpc.StatusCode.INTERNAL,
                f"the server answered {counted(texts, 'text')} with {len(flat):,} numbers in "
                f"vectors of {response.dim:,}",
            )
        vectors = flat.reshape(texts, response.dim)
        return Vectors(
            vectors=vectors,
            timing=_checked(vectors, response.timings),
            tokens=response.tokens,
            truncated=response.truncated,
        )

    async def send_score(
        self, message: pb.ScoreRequest | pb.ScorePairsRequest, timeout_s: float | None = None
    ) -> Reply:
        """Send a prepared request for scores by its RPC."""
        rpc = self._stub.Score if isinstance(message, pb.ScoreRequest) else self._stub.ScorePairs
        response: pb.ScoreResponse = await rpc(message, timeout=timeout_s)
        scores = np.array(response.scores, dtype=np.float32)
        if len(scores) != message_size(message):
            raise _bad_reply(
                grpc.StatusCode.INTERNAL,
                f"the server answered {counted(message_size(message), 'pair')} with "
                f"{counted(len(scores), 'score')}",
            )
        return Reply(
            scores=scores,
            timing=_checked(scores, response.timings),
            tokens=response.tokens,
            truncated=response.truncated,
        )

    async def info(self) -> pb.ServerInfo:
        reply: pb.ServerInfo = await self._stub.GetInfo(pb.GetInfoRequest())
        return reply

    async def metrics(self) -> pb.Metrics:
        reply: pb.Metrics = await self._stub.GetMetrics(pb.GetMetricsRequest())
        return reply

    async def watch_metrics(self, interval_s: float) -> AsyncIterator[pb.Metrics]:
        async for metrics in self._stub.WatchMetrics(pb.WatchMetricsRequest(interval_s=interval_s)):
            yield metrics

    async def reset_metrics(self) -> None:
        await self._stub.ResetMetrics(pb.ResetMetricsRequest())


def error_message(error: grpc.aio.AioRpcError) -> str:
    """The status code and what the server or gRPC said, on one line."""
    return f"{error.code().name}: {' '.join((error.details() or 'no words').split())}"


def message_size(message: Message) -> int:
    """Pairs in a request, or texts where it embeds."""
    if isinstance(message, pb.ScoreRequest):
        return len(message.passages)
    return len(message.texts if isinstance(message, pb.EmbedRequest) else message.pairs)


def _checked(values: Float32Array, stages: pb.StageTimings) -> Timing:
    """A reply's timings, refused with its values where one of these numbers is not finite."""
    timing = Timing(stages.tokenize_ms, stages.queue_ms, stages.infer_ms)
    wrong = count_non_finite(values)
    if not all(map(math.isfinite, (timing.tokenize_ms, timing.queue_ms, timing.infer_ms))):
        wrong = wrong or "the stages' timings"
    if wrong:
        raise _bad_reply(
            NON_FINITE,
            f"the server answered, but {wrong} are NaN or infinite: look for an overflow there, "
            "for example in fp16, and serve the model in bf16 or fp32",
        )
    return timing


def _bad_reply(status: grpc.StatusCode, words: str) -> grpc.aio.AioRpcError:
    """What a failed call raises, for a reply that came and cannot be used."""
    return grpc.aio.AioRpcError(status, grpc.aio.Metadata(), grpc.aio.Metadata(), words)


def pairs_message(pairs: Sequence[Pair], model: str | None = None) -> pb.ScorePairsRequest:
    """A ScorePairs request for pairs that may span queries."""
    return pb.ScorePairsRequest(
        pairs=[pb.Pair(query=pair.query, passage=pair.passage) for pair in pairs], model=model
    )
