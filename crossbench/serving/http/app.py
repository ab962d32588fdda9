"""The ASGI app of the HTTP port: routes, checks, and the way of a request to the scorer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

import orjson

from crossbench.errors import CrossbenchError, DeadlineExpired, RequestTooLarge
from crossbench.serving import inference_pb2 as pb
from crossbench.serving.bearer import is_right
from crossbench.serving.http import openai, rerank, tei
from crossbench.serving.http.bodies import Bodies, ClientLeft, Headers, header
from crossbench.serving.http.fields import Fields
from crossbench.serving.http.json_body import read_object
from crossbench.serving.http.statuses import DEADLINE, deadline_of, http_status, retry_after
from crossbench.serving.http.work import Form, Work
from crossbench.serving.intake import Intake, Request, status_of
from crossbench.serving.limits import RequestLimits
from crossbench.serving.server_settings import ServerSettings
from crossbench.serving.service import Answer, ModelService, shortened
from crossbench.wording import error_text, number

TICK_S = 0.002  # uvloop's clock counts milliseconds, and a timer may fire one early
JSON = b"application/json"


def _rerank(fields: Fields, limits: RequestLimits) -> Work:
    """Read TEI's form, or that of Jina, vLLM and Infinity, which have "documents"."""
    return (rerank.version_1 if fields.has("documents") else tei.rerank)(fields, limits)


FORMS = {
    "/rerank": Form(_rerank, tei.error, tei.WRONG_TASK),
    "/embed": tei.EMBED,
    "/v1/rerank": rerank.V1,
    "/v2/rerank": rerank.V2,
    "/score": openai.SCORE,
    "/v1/score": openai.SCORE,
    "/v1/embeddings": openai.EMBEDDINGS,
}
READS = ("/health", "/info", "/metrics")


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ((b"content-type", JSON),)


class Refused(Exception):
    """A request that is refused before it reaches the scorer."""

    def __init__(self, status: int, message: str, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers


class App:
    """Answers the requests of one server. `token` is the one that clients must send, if any."""

    def __init__(
        self, intake: Intake, settings: ServerSettings, token: str | None, info: pb.ServerInfo
    ) -> None:
        self._intake = intake
        self._token = token
        self._info = info
        self._max_pairs = settings.max_pairs
        self._max_requests = settings.connections.max_requests
        self._bodies = Bodies(settings.max_request_bytes)
        self._receive_s = settings.http.receive_s
        self._requests = 0
        self._date = (0, b"")  # of a second of time.time()

    async def __call__(
        self,
        scope: Any,
        receive: Callable[[], Awaitable[Any]],
        send: Callable[[Any], Awaitable[None]],
    ) -> None:
        connection = scope["connection"]
        connection.task = asyncio.current_task()
        try:
            self._requests += 1
            reply = await self._reply(scope, receive)
        except ClientLeft:
            return
        except asyncio.CancelledError:
            if not connection.is_late:
                return  # the connection is lost
            asyncio.current_task().uncancel()  # type: ignore[union-attr]
            message = f"the body did not arrive within {self._receive_s:g} s: send it again"
            reply = self._error(scope["path"], 408, message, (b"connection", b"close"))
        finally:
            self._requests -= 1
            connection.task = None
        length = str(len(reply.body)).encode()
        headers = [*reply.headers, (b"content-length", length), (b"date", self._now())]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})

    def _now(self) -> bytes:
        """Return the date as HTTP has it, made once a second."""
        now_s = int(time.time())
        if self._date[0] != now_s:
            self._date = (now_s, formatdate(now_s, usegmt=True).encode())
        return self._date[1]

    async def _reply(self, scope: Any, receive: Callable[[], Awaitable[Any]]) -> Reply:
        path, headers = scope["path"], scope["headers"]
        form = FORMS.get(path)
        try:
            self._check(path, scope["method"], headers)
            if form is None:
                return self._read(path, headers)
            timeout_s, data = await self._received(headers, receive)
            return Reply(200, await self._answer(form, data, timeout_s))
        except Refused as refused:
            # A client that waits for permission to send its body must not send it now
            close = ((b"connection", b"close"),) if header(headers, b"expect") else ()
            return self._error(path, refused.status, str(refused), *refused.headers, *close)
        except CrossbenchError as error:
            status, advice = http_status(error, form), retry_after(error)
            return self._error(path, status, str(error), *advice)
        except Exception as error:  # the intake has logged and counted it
            return self._error(path, 500, error_text(error))

    def _check(self, path: str, method: str, headers: Headers) -> None:
        """Check what can be checked before the body is received."""
        form = FORMS.get(path)
        if form is None and path not in READS:
            raise Refused(
                404, f"there is no {shortened(path)}: use one of {', '.join((*FORMS, *READS))}"
            )
        allowed = "POST" if form is not None else "GET"
        if method != allowed and not (method == "HEAD" and form is None):
            allow = (b"allow", allowed.encode())
            raise Refused(405, f"{path} does not support {method}: send {allowed}", allow)
        if path == "/health":  # load balancers ask without credentials
            return
        if self._token is not None and not is_right(header(headers, b"authorization"), self._token):
            self._intake.telemetry.request_failed("UNAUTHENTICATED")
            raise Refused(
                401,
                "this server wants a token, and the request has none or another one: send the "
                "header Authorization: Bearer TOKEN",
                (b"www-authenticate", b"Bearer"),
            )
        if form is None:
            return
        if self._requests > self._max_requests:
            self._intake.telemetry.request_failed("RESOURCE_EXHAUSTED")
            raise Refused(
                429,
                f"the server has {self._max_requests} requests already: send it again later, or "
                "raise server.connections.max_requests",
                (b"retry-after", b"1"),
            )
        # Pages of other sites can send only other types without being asked for permission
        kind = header(headers, b"content-type").partition(b";")[0].strip().lower()
        if kind != JSON:
            raise Refused(
                415, "the request does not declare JSON: send content-type: application/json"
            )

    def _read(self, path: str, headers: Headers) -> Reply:
        """Return the reply of a path that is only read."""
        if path == "/health":
            if self._intake.serving and not self._intake.stopping.is_set():
                return Reply(200, b"")
            return self._error(path, 503, "unhealthy")
        if path == "/info":
            embedding = self._intake.default.model.embedding
            return Reply(200, orjson.dumps(tei.info(self._info, embedding, self._max_requests)))
        from crossbench.serving.exposition import exposition
        from crossbench.serving.prometheus import ServerCollector

        accept = header(headers, b"accept").decode("latin-1")
        body, content_type = exposition(ServerCollector(self._intake.metrics()), accept)
        return Reply(200, body, ((b"content-type", content_type.encode()),))

    async def _received(
        self, headers: Headers, receive: Callable[[], Awaitable[Any]]
    ) -> tuple[float | None, bytes]:
        """Return how long the client waits, and the body.

        Raises:
            Refused: one of them cannot be used. The rest of the body is not read.
        """
        try:
            return deadline_of(headers), await self._bodies.receive(headers, receive)
        except CrossbenchError as error:
            self._intake.telemetry.request_failed(status_of(error).name)
            advice = (*retry_after(error), (b"connection", b"close"))
            raise Refused(http_status(error, None), str(error), *advice) from error

    async def _answer(self, form: Form, data: bytes, timeout_s: float | None) -> bytes:
        arrived_s = time.perf_counter()
        deadline_s = None if timeout_s is None else arrived_s + timeout_s
        replies: list[bytes] = []

        async def compute() -> Answer:
            work = form.read(read_object(data, self._max_pairs), self._intake.limits)
            request = Request(work.model, work.count, work.items, len(data))

            async def run(service: ModelService) -> Answer:
                answer = await work.compute(service, deadline_s)
                if answer.truncated and not work.truncates:
                    raise RequestTooLarge(
                        f"{answer.truncated} of the {work.items} are longer than the "
                        f"{service.model.max_length} tokens that the model reads: shorten them, or "
                        "let the server truncate them"
                    )
                made = work.reply(service, answer)
                replies.append(orjson.dumps(made, option=orjson.OPT_SERIALIZE_NUMPY))
                return answer

            return await self._intake.admit(request, arrived_s, deadline_s, run)

        if timeout_s is None:
            await self._intake.count(compute, arrived_s, None)
            return replies[0]
        try:
            async with asyncio.timeout(timeout_s + TICK_S):
                await self._intake.count(compute, arrived_s, deadline_s)
        except TimeoutError:
            raise DeadlineExpired(
                f"the request was not answered within {number(timeout_s * 1e3)} ms, its deadline: "
                f"give it more time with the header {DEADLINE.decode()}"
            ) from None
        return replies[0]

    def _error(self, path: str, status: int, message: str, *headers: tuple[bytes, bytes]) -> Reply:
        form = FORMS.get(path, FORMS["/rerank"])
        body = orjson.dumps(form.error(status, message))
        return Reply(status, body, ((b"content-type", JSON), *headers))
