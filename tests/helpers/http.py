"""A real server in the test process with an HTTP port, and a client of it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from crossbench.backends.base import Backend
from crossbench.serving.client import InferenceClient
from crossbench.serving.http.settings import HttpSettings
from crossbench.serving.replica import Replica
from crossbench.serving.server import Server
from tests.helpers.serving import running

HTTP = HttpSettings(0, 30.0)


@dataclass(frozen=True)
class Both:
    """One server and its clients of HTTP and gRPC."""

    server: Server
    http: httpx.AsyncClient
    grpc: InferenceClient

    async def post(self, path: str, **fields: Any) -> httpx.Response:
        return await self.http.post(path, json=fields)

    async def json(self, path: str, **fields: Any) -> Any:
        """Send a request that must succeed; return the reply."""
        reply = await self.post(path, **fields)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def connect(self) -> socket.socket:
        """Open a plain connection to the HTTP port."""
        url = urlsplit(self.server.http_url)
        return socket.create_connection((url.hostname, url.port), 20.0)


@contextlib.asynccontextmanager
async def both(replicas: Sequence[Backend | Replica], **options: Any) -> AsyncIterator[Both]:
    """Start a server with an HTTP port; `options` are those of running()."""
    options.setdefault("http", HTTP)
    async with (
        running(replicas, **options) as server,
        httpx.AsyncClient(base_url=server.http_url, timeout=60, trust_env=False) as http,
        InferenceClient(server.address) as grpc,
    ):
        yield Both(server, http, grpc)


def request_bytes(path: str, body: bytes, **headers: str) -> bytes:
    """Return a POST request of HTTP/1.1."""
    given = {
        "host": "tests",
        "content-type": "application/json",
        "content-length": str(len(body)),
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body
