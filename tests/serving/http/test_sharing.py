"""HTTP shares with gRPC: admission, deadlines, cancelling, the token, TLS and the end."""

from __future__ import annotations

import asyncio
import dataclasses
import ssl
from pathlib import Path

import grpc
import httpx
import pytest

from crossbench.errors import ConfigError
from crossbench.models.folder import ModelFolder
from crossbench.serving.client import InferenceClient
from crossbench.serving.http.settings import HttpSettings
from crossbench.serving.scheduler import DirectScheduler
from crossbench.serving.tls import ServerTls
from tests.helpers.certificates import Authority
from tests.helpers.http import HTTP, both
from tests.helpers.serving import SETTINGS, gated, noop, running, until

TOKEN = "a-token-of-these-tests-0123456789"


def test_both_ports_have_one_admission(seeded_model: ModelFolder) -> None:
    backend = gated(seeded_model)

    async def run() -> None:
        async with both(
            [backend], scheduler=DirectScheduler("direct"), max_queue_pairs=4
        ) as served:
            computed = asyncio.create_task(served.grpc.score("q", ["p"]))
            await until(lambda: backend.ran)
            waiting = asyncio.create_task(served.post("/rerank", query="q", texts=["p"] * 3))
            await until(lambda: served.server._telemetry.in_flight == 2)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await served.grpc.score("q", ["p"] * 2)
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            for path, fields in (
                ("/rerank", {"query": "q", "texts": ["p"] * 2}),
                ("/v2/rerank", {"query": "q", "documents": ["p"] * 2}),
                ("/score", {"text_1": "q", "text_2": ["p"] * 2}),
            ):
                reply = await served.post(path, **fields)
                assert reply.status_code == 429
                assert "3 pairs wait, and 2 more would exceed the limit of 4" in reply.text
                assert int(reply.headers["retry-after"]) >= 1
                assert int(reply.headers["retry-after-ms"]) >= 10
            backend.gate.set()
            assert (await waiting).status_code == 200
            await computed
            metrics = await served.grpc.metrics()
            assert (metrics.requests_ok, metrics.pairs) == (2, 4)
            assert dict(metrics.requests_failed) == {"RESOURCE_EXHAUSTED": 4}

    asyncio.run(run())


def test_a_deadline_and_a_client_that_leaves_free_the_queue(seeded_model: ModelFolder) -> None:
    backend = gated(seeded_model)

    async def run() -> None:
        async with both([backend], scheduler=DirectScheduler("direct")) as served:
            telemetry = served.server._telemetry
            (service,) = served.server._services.values()
            computed = asyncio.create_task(served.grpc.score("q", ["p"]))
            await until(lambda: backend.ran)
            fields = {"query": "q", "texts": ["p"]}
            hurried = {"x-request-timeout-ms": "50"}
            reply = await served.http.post("/rerank", json=fields, headers=hurried)
            assert reply.status_code in (429, 504), reply.text
            words = "its deadline" if reply.status_code == 504 else "but its deadline is in"
            assert words in reply.json()["error"]
            for wrong in ("0", "-1", "soon", "nan", "inf"):
                reply = await served.http.post(
                    "/rerank", json=fields, headers={"x-request-timeout-ms": wrong}
                )
                assert (reply.status_code, "milliseconds above 0" in reply.text) == (400, True)

            leaving = asyncio.create_task(served.http.post("/rerank", json=fields))
            await until(lambda: telemetry.in_flight == 2)
            assert service.pool.waiting == 1
            leaving.cancel()
            await until(lambda: telemetry.in_flight == 1)
            assert service.pool.waiting == 0
            backend.gate.set()
            await computed
            failed = (await served.grpc.metrics()).requests_failed
            assert failed["CANCELLED"] == 1

    asyncio.run(run())


def test_a_drain_answers_what_is_in_flight_and_refuses_the_rest(seeded_model: ModelFolder) -> None:
    backend = gated(seeded_model)

    async def run() -> None:
        async with both([backend], grace_s=30.0) as served:
            accepted = asyncio.create_task(served.post("/rerank", query="q", texts=["a", "b"]))
            await until(lambda: backend.ran)
            stopping = asyncio.create_task(served.server.stop())
            await until(served.server.intake.stopping.is_set)
            health = await served.http.get("/health")
            assert (health.status_code, health.json()["error"]) == (503, "unhealthy")
            reply = await served.post("/v1/rerank", query="q", documents=["a"])
            assert reply.status_code == 503
            assert "the server is shutting down" in reply.json()["message"]
            assert reply.headers["retry-after"] == "1"
            backend.gate.set()
            assert len((await accepted).json()) == 2
            await stopping
            with pytest.raises(httpx.ConnectError):
                await served.http.get("/health")

    asyncio.run(run())


def test_every_path_but_health_needs_the_token(seeded_model: ModelFolder, tmp_path: Path) -> None:
    token_file = tmp_path / "token"
    token_file.write_text(TOKEN)
    token_file.chmod(0o600)

    async def run() -> None:
        async with both([noop(seeded_model)], token_file=str(token_file)) as served:
            fields = {"query": "q", "texts": ["a"]}
            assert (await served.http.get("/health")).status_code == 200
            for given in (
                None,
                "Bearer wrong",
                TOKEN,
                f"Basic {TOKEN}",
                f"Bearer {TOKEN}x",
                "Bearer",
            ):
                headers = {} if given is None else {"authorization": given}
                for path in ("/info", "/metrics"):
                    assert (await served.http.get(path, headers=headers)).status_code == 401
                reply = await served.http.post("/rerank", json=fields, headers=headers)
                assert reply.status_code == 401
                assert reply.headers["www-authenticate"] == "Bearer"
                assert "send the header Authorization: Bearer TOKEN" in reply.json()["error"]
                assert TOKEN not in reply.text
            reply = await served.http.post("/v1/embeddings", json={"input": "a"})
            assert reply.json()["error"]["type"] == "authentication_error"
            for scheme in ("Bearer", "bearer"):
                headers = {"authorization": f"{scheme} {TOKEN}"}
                reply = await served.http.post("/rerank", json=fields, headers=headers)
                assert reply.status_code == 200
            assert served.server._telemetry._failed["UNAUTHENTICATED"] == 19

    asyncio.run(run())


def test_https_has_the_certificate_of_grpc_and_asks_for_that_of_clients(
    seeded_model: ModelFolder, tmp_path: Path
) -> None:
    authority, clients = Authority(tmp_path, "authority"), Authority(tmp_path, "clients")
    pair = authority.issue("server", "127.0.0.1")
    known, unknown = clients.issue("known"), authority.issue("unknown")
    fields = {"query": "q", "texts": ["a"]}

    def context(trusts: str, *own: str) -> ssl.SSLContext:
        made = ssl.create_default_context(cafile=trusts)
        if own:
            made.load_cert_chain(*own)
        return made

    async def status(url: str, how: ssl.SSLContext) -> int:
        async with httpx.AsyncClient(base_url=url, verify=how, trust_env=False) as client:
            return (await client.post("/rerank", json=fields)).status_code

    async def run() -> None:
        tls = ServerTls(pair.cert, pair.key, None)
        async with running([noop(seeded_model)], tls=tls, http=HTTP) as server:
            assert server.http_url.startswith("https://127.0.0.1:")
            assert await status(server.http_url, context(authority.pem)) == 200
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                await status(server.http_url, context(clients.pem))
            plain = server.http_url.replace("https", "http")
            with pytest.raises(httpx.HTTPError):
                await status(plain, context(authority.pem))
        tls = ServerTls(pair.cert, pair.key, clients.pem)
        async with running([noop(seeded_model)], tls=tls, http=HTTP) as server:
            for own in (known, pair):  # the server's own certificate is accepted, as for gRPC
                how = context(authority.pem, own.cert, own.key)
                assert await status(server.http_url, how) == 200
            for how in (context(authority.pem), context(authority.pem, unknown.cert, unknown.key)):
                with pytest.raises(httpx.HTTPError):
                    await status(server.http_url, how)
            settings = dataclasses.replace(SETTINGS, tls=tls)
            async with InferenceClient(server.address, settings.client_access()) as client:
                assert len((await client.score("q", ["p"])).scores) == 1

    asyncio.run(run())


def test_a_port_that_cannot_be_used_is_told_with_its_key(seeded_model: ModelFolder) -> None:
    async def run() -> None:
        async with both([noop(seeded_model)]) as served:
            taken = int(served.server.http_url.rpartition(":")[2])
            settings = dataclasses.replace(SETTINGS, http=HttpSettings(taken, 30.0))
            told = f"server.http.port={taken} is already in use on 127.0.0.1"
            with pytest.raises(ConfigError, match=told):
                settings.check_listen()
            with pytest.raises(ConfigError, match=told):
                async with running([noop(seeded_model)], http=HttpSettings(taken, 30.0)):
                    pass

    asyncio.run(run())
    for port in (-1, 65_536):
        with pytest.raises(ConfigError, match=r"server\.http\.port must be 0"):
            HttpSettings(port, 30.0)
    with pytest.raises(ConfigError, match="are both 8080: give two ports"):
        dataclasses.replace(SETTINGS, port=8080, http=HttpSettings(8080, 30.0))
