"""A client of the Inference service: text in, NumPy scores and stage timings out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import grpc
import numpy as np

from crossbench.serving import inference_pb2 as pb
from crossbench.serving import inference_pb2_grpc as pb_grpc
from crossbench.types import Float32Array, Pair, Timing

Message = pb.ScoreRequest | pb.ScorePairsRequest


@dataclass(frozen=True, slots=True)
class Reply:
    """Scores float32 (n,) in the request's order; the stages' timings; real tokens."""

    scores: Float32Array
    timing: Timing
    tokens: int
    truncated: int


class InferenceClient:
    """One channel to `address` (HOST:PORT), for use on one event loop.

    Every call raises grpc.aio.AioRpcError with the server's status code and words.
    """

    def __init__(self, address: str) -> None:
        # A pool of its own: connections are not shared with other clients of this process
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
        self._channel = grpc.aio.insecure_channel(address, options=options)
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
        return await self.send(pb.ScoreRequest(query=query, passages=passages, model=model))

    async def score_pairs(self, pairs: Sequence[Pair], model: str | None = None) -> Reply:
        return await self.send(pairs_message(pairs, model))

    async def send(self, message: Message, timeout_s: float | None = None) -> Reply:
        """Send a prepared request by the RPC that is made for it."""
        rpc = self._stub.Score if isinstance(message, pb.ScoreRequest) else self._stub.ScorePairs
        response: pb.ScoreResponse = await rpc(message, timeout=timeout_s)
        stages = response.timings
        return Reply(
            scores=np.array(response.scores, dtype=np.float32),
            timing=Timing(stages.tokenize_ms, stages.queue_ms, stages.infer_ms),
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


def pairs_message(pairs: Sequence[Pair], model: str | None = None) -> pb.ScorePairsRequest:
    """A ScorePairs request for pairs that may span queries."""
    return pb.ScorePairsRequest(
        pairs=[pb.Pair(query=pair.query, passage=pair.passage) for pair in pairs], model=model
    )
