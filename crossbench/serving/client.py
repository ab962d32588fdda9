"""Client of the Inference service: takes texts, returns NumPy arrays and stage timings."""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass

import grpc
import numpy as np

from crossbench.errors import InvalidRequest
from crossbench.serving import inference_pb2 as pb
from crossbench.serving import inference_pb2_grpc as pb_grpc
from crossbench.serving.access import OPEN, ClientAccess
from crossbench.serving.finite import NON_FINITE, count_non_finite
from crossbench.system.addresses import is_this_machine, join_address, reachable_host, split_address
from crossbench.types import Float32Array, Pair, Timing
from crossbench.wording import counted

Message = pb.ScoreRequest | pb.ScorePairsRequest | pb.EmbedRequest


@dataclass(frozen=True, slots=True)
class Reply:
    """Scores, float32 (n,), in the order of the request.

    `tokens` counts real tokens, `truncated` the pairs that were longer than the model accepts. Both
    are None if the server does not tell, and the timing is NaN then.
    """

    scores: Float32Array
    timing: Timing
    tokens: int | None
    truncated: int | None


@dataclass(frozen=True, slots=True)
class Vectors:
    """Embeddings, float32 (n, dim), in the order of the request; other fields as in Reply."""

    vectors: Float32Array
    timing: Timing
    tokens: int | None
    truncated: int | None


class InferenceClient:
    """A connection to the server at `address` (HOST:PORT), to be used on one event loop.

    `access` has what it needs to get in. A proxy of the environment (http_proxy, no_proxy) is used
    only for other machines. `is_local` tells whether the server is on this machine.

    Calls raise grpc.aio.AioRpcError: with the server's status code and message if the server
    fails, with NON_FINITE if the reply contains NaN or infinite values or timings, and with
    INTERNAL if the reply has the wrong number of scores or vectors. Texts that
    UTF-8 cannot encode raise InvalidRequest, before anything is sent.

    Raises:
        ConfigError: `address` is not HOST:PORT, or a file of `access` cannot be read.
    """

    spans_queries = True  # ScorePairs

    def __init__(self, address: str, access: ClientAccess = OPEN) -> None:
        host, port = split_address(address, "server.address")
        self.is_local = is_this_machine(host)
        options: list[tuple[str, int | str]] = [
            # Do not share connections with other clients of this process
            ("grpc.use_local_subchannel_pool", 1),
            # The server limits message sizes; a thousand vectors exceed gRPC's default of 4 MB
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", -1),
            # gRPC would send loopback requests through the proxy too, which cannot reach the server
            ("grpc.enable_http_proxy", 0 if self.is_local else 1),
        ]
        target = join_address(reachable_host(host), port)
        if access.server_name is not None:
            options.append(("grpc.ssl_target_name_override", access.server_name))
        credentials = access.credentials()
        self._channel = (
            grpc.aio.insecure_channel(target, options=options)
            if credentials is None
            else grpc.aio.secure_channel(target, credentials, options=options)
        )
        self._metadata = access.metadata()
        self._stub = pb_grpc.InferenceStub(self._channel)  # type: ignore[no-untyped-call]

    async def __aenter__(self) -> InferenceClient:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._channel.close()

    async def ready(self, timeout_s: float) -> None:
        """Wait until the server answers.

        Raises:
            grpc.aio.AioRpcError: the server did not answer within `timeout_s`, or it failed.
        """
        await self._stub.GetInfo(
            pb.GetInfoRequest(), wait_for_ready=True, timeout=timeout_s, metadata=self._metadata
        )

    async def score(self, query: str, passages: Sequence[str], model: str | None = None) -> Reply:
        with _texts_that_can_be_sent():
            message = pb.ScoreRequest(query=query, passages=passages, model=model)
        return await self.send_score(message)

    async def score_pairs(self, pairs: Sequence[Pair], model: str | None = None) -> Reply:
        with _texts_that_can_be_sent():
            message = pairs_message(pairs, model)
        return await self.send_score(message)

    async def embed(self, texts: Sequence[str], model: str | None = None) -> Vectors:
        with _texts_that_can_be_sent():
            message = pb.EmbedRequest(texts=texts, model=model)
        return await self._embed(message)

    async def send(self, message: Message, timeout_s: float | None = None) -> Reply | Vectors:
        """Send a prepared request with the RPC for its type."""
        if isinstance(message, pb.EmbedRequest):
            return await self._embed(message, timeout_s)
        return await self.send_score(message, timeout_s)

    async def _embed(self, message: pb.EmbedRequest, timeout_s: float | None = None) -> Vectors:
        response: pb.EmbedResponse = await self._stub.Embed(
            message, timeout=timeout_s, metadata=self._metadata
        )
        flat, texts = np.array(response.values, dtype=np.float32), len(message.texts)
        if not response.dim or len(flat) != texts * response.dim:
            raise bad_reply(
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
        """Send a prepared Score or ScorePairs request."""
        rpc = self._stub.Score if isinstance(message, pb.ScoreRequest) else self._stub.ScorePairs
        response: pb.ScoreResponse = await rpc(message, timeout=timeout_s, metadata=self._metadata)
        scores = np.array(response.scores, dtype=np.float32)
        if len(scores) != message_size(message):
            raise bad_reply(
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
        reply: pb.ServerInfo = await self._stub.GetInfo(
            pb.GetInfoRequest(), metadata=self._metadata
        )
        return reply

    async def metrics(self, timeout_s: float | None = None) -> pb.Metrics:
        reply: pb.Metrics = await self._stub.GetMetrics(
            pb.GetMetricsRequest(), timeout=timeout_s, metadata=self._metadata
        )
        return reply

    async def watch_metrics(self, interval_s: float) -> AsyncIterator[pb.Metrics]:
        message = pb.WatchMetricsRequest(interval_s=interval_s)
        stream = self._stub.WatchMetrics(message, metadata=self._metadata)
        try:
            async for metrics in stream:
                yield metrics
        finally:  # else the server would go on sending to a caller that has stopped to read
            stream.cancel()

    async def reset_metrics(self) -> None:
        await self._stub.ResetMetrics(pb.ResetMetricsRequest(), metadata=self._metadata)


def error_message(error: grpc.aio.AioRpcError) -> str:
    """Return the status code and the message of the server or of gRPC, on one line."""
    return f"{error.code().name}: {' '.join((error.details() or 'no message').split())}"


def message_size(message: Message) -> int:
    """Return the number of pairs in a request, or of texts if it embeds."""
    if isinstance(message, pb.ScoreRequest):
        return len(message.passages)
    return len(message.texts if isinstance(message, pb.EmbedRequest) else message.pairs)


def _checked(values: Float32Array, stages: pb.StageTimings) -> Timing:
    """Return the timings of a reply; raise an error if a value or a timing is not finite."""
    timing = Timing(stages.tokenize_ms, stages.queue_ms, stages.infer_ms)
    finite = all(map(math.isfinite, (timing.tokenize_ms, timing.queue_ms, timing.infer_ms)))
    refuse_non_finite(values, "" if finite else "the stage timings")
    return timing


def refuse_non_finite(values: Float32Array, other: str = "") -> None:
    """Raise an error if values are not finite, or if `other` says what else is not."""
    if non_finite := count_non_finite(values) or other:
        raise bad_reply(
            NON_FINITE,
            f"the server answered, but {non_finite} are NaN or infinite: look for an overflow on "
            "the server, for example in fp16, and serve the model in bf16 or fp32",
        )


@contextlib.contextmanager
def _texts_that_can_be_sent() -> Iterator[None]:
    """Raise InvalidRequest, in words, for a text that UTF-8 cannot encode."""
    try:
        yield
    except UnicodeEncodeError as error:
        near = error.object[max(error.start - 20, 0) : error.end + 20]
        raise InvalidRequest(
            f"a text has an unpaired surrogate at character {error.start:,}, near {near!r}, which "
            "UTF-8 cannot encode: replace it, for example with "
            'text.encode("utf-8", "replace").decode()'
        ) from error


def bad_reply(status: grpc.StatusCode, message: str) -> grpc.aio.AioRpcError:
    """Return the error for an unusable reply, of the same type as that of a failed call."""
    return grpc.aio.AioRpcError(status, grpc.aio.Metadata(), grpc.aio.Metadata(), message)


def pairs_message(pairs: Sequence[Pair], model: str | None = None) -> pb.ScorePairsRequest:
    """Return a ScorePairs request for pairs of one or more queries."""
    return pb.ScorePairsRequest(
        pairs=[pb.Pair(query=pair.query, passage=pair.passage) for pair in pairs], model=model
    )
