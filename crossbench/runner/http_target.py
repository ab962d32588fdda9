"""target=http: a server of other people, which runs already and speaks one of the HTTP APIs."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import grpc

from crossbench.errors import ConfigError, TargetUnreachable
from crossbench.runner.pinning import Cores
from crossbench.serving import inference_pb2 as pb
from crossbench.serving.bearer import read_token
from crossbench.serving.http_apis import APIS, ApiName
from crossbench.serving.server import Server
from crossbench.system.addresses import is_this_machine
from crossbench.system.secret_files import exposed_to_others
from crossbench.types import Task

if TYPE_CHECKING:
    from crossbench.serving.http_client import HttpClient

_TRIAL = pb.ScoreRequest(query="what is a test", passages=["This is one test.", "And another."])


@dataclass(frozen=True)
class HttpServer:
    """A server at `url` with the API `api`; conf/target/http.yaml describes the other values.

    Raises:
        ConfigError: a value cannot be used.
    """

    name: str
    url: str
    api: ApiName
    path: str | None
    model: str | None
    body: Mapping[str, Any] | None
    token_file: str | None
    ca: str | None
    connect_timeout_s: float
    max_connections: int
    max_reply_bytes: int
    scrape: str | None
    cores: Cores | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        check_url("target.url", self.url)
        if self.scrape is not None:
            check_url("target.scrape", self.scrape)
        if self.path is not None and not self.path.startswith("/"):
            raise ConfigError(
                f"target.path must begin with a slash, got {self.path!r}: give for example "
                f"target.path={APIS[self.api].path}"
            )
        if self.token_file is not None:
            read_token(self.token_file, "target.token_file", least=1)
        if self.ca is not None:
            _check_ca(self.ca)
        for key in ("connect_timeout_s", "max_connections", "max_reply_bytes"):
            if not getattr(self, key) > 0:
                raise ConfigError(f"target.{key} must be above 0, got {getattr(self, key)}")

    @property
    def local_port(self) -> int | None:
        """The port of a server on this machine; None if it is on another one."""
        parts = urlsplit(self.url)
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
        return port if is_this_machine(parts.hostname or "") else None

    async def open(self, make_server: Callable[[], Server]) -> str:
        """Send one request, to find out whether the server understands it; return its URL.

        Raises:
            TargetUnreachable: the server does not answer it as its API says.
        """
        async with self.client() as client:
            try:
                await client.send(_TRIAL, self.connect_timeout_s)
            except grpc.aio.AioRpcError as error:
                late = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
                advice = (
                    ": look whether the server is ready, or give a higher target.connect_timeout_s"
                )
                raise TargetUnreachable(
                    f"{self.url} cannot be measured with target.api={self.api}: {error.details()}"
                    + (advice if late else "")
                ) from error
        return self.url

    async def close(self) -> None:
        """Leave the server running: it was started by the user."""

    def client(self) -> HttpClient:
        """Return a client, to be used on one event loop."""
        from crossbench.serving.http_client import HttpClient, HttpSettings

        token = self.token_file
        return HttpClient(
            HttpSettings(
                url=self.url,
                api=self.api,
                path=self.path,
                model=self.model,
                body=self.body or {},
                token=None if token is None else read_token(token, "target.token_file", least=1),
                ca=self.ca,
                max_connections=self.max_connections,
                max_reply_bytes=self.max_reply_bytes,
            )
        )

    def check_task(self, task: Task) -> None:
        """Refuse a task that the API does not have.

        Raises:
            ConfigError: the load asks for embeddings, and the API scores.
        """
        if task is Task.EMBED and not APIS[self.api].embeds:
            embedding = ", ".join(name for name, api in APIS.items() if api.embeds)
            raise ConfigError(
                f"load.task=embed: target.api={self.api} scores pairs and has no embeddings: give "
                f"load.task=score, or target.api={embedding}"
            )

    def warnings(self) -> list[str]:
        """Return what is not safe about how the token travels and lies, in words."""
        if self.token_file is None:
            return []
        found = [exposed_to_others(self.token_file, "target.token_file")]
        parts = urlsplit(self.url)
        if parts.scheme == "http" and not is_this_machine(parts.hostname or ""):
            found.append(
                f"the token travels in plain text to {parts.hostname}, where others on the network "
                "can read it: give an https:// address as target.url"
            )
        return [warning for warning in found if warning]


def check_url(key: str, url: str) -> None:
    """Refuse a URL that is not http(s)://HOST[:PORT][/PATH].

    Raises:
        ConfigError: the message has the value of the setting `key`.
    """
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        good = False
    if not good or parts.query or parts.fragment:
        raise ConfigError(
            f"{key} must be http://HOST:PORT or https://HOST:PORT, got {url!r}: give for example "
            f"{key}=http://127.0.0.1:8000"
        )
    if parts.username is not None or parts.password is not None:
        raise ConfigError(
            f"{key} has a user name or a password, which results would keep: give the token in a "
            "file, target.token_file=FILE"
        )


def _check_ca(path: str) -> None:
    try:
        ssl.create_default_context(cafile=path)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"target.ca={path} cannot be used ({error.strerror or error}): give a PEM file with "
            "the certificates to trust"
        ) from error
