"""Who may come in: TLS, mutual TLS, the bearer token, and what the user is told about them."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from crossbench.errors import ConfigError, TargetUnreachable
from crossbench.models.folder import ModelFolder
from crossbench.runner.checks import check_config
from crossbench.runner.targets import Remote
from crossbench.serving.access import OPEN, ClientAccess
from crossbench.serving.client import InferenceClient
from crossbench.serving.connection_fault import connection_fault
from crossbench.serving.tls import ServerTls
from tests.helpers.certificates import Authority, Pair
from tests.helpers.commands import QUICK, crossbench, results, the_sweep
from tests.helpers.plans import config_of
from tests.helpers.serving import SETTINGS, noop, serving

TOKEN = "a-token-of-these-tests-0123456789"
PLAIN = ServerTls(None, None, None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    return Authority(folder, "authority")


@pytest.fixture(scope="module")
def stranger(folder: Path) -> Authority:
    return Authority(folder, "stranger")


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    """The certificate of a server whose name is not that of this machine."""
    return authority.issue("server", "rerank.example")


@pytest.fixture
def token_file(tmp_path: Path) -> str:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    path.chmod(0o600)
    return str(path)


def access(**given: str) -> ClientAccess:
    return ClientAccess.of(given)


async def scored(address: str, how: ClientAccess) -> int:
    async with InferenceClient(address, how) as client:
        return len((await client.score("a query", ["one", "two"])).scores)


async def status_of(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    return failed.value.code(), failed.value.details() or ""


async def opened(address: str, how: ClientAccess) -> str:
    """Return the error of target=remote."""
    with pytest.raises(TargetUnreachable) as failed:
        await Remote("remote", address, 0.5, how, None).open(lambda: pytest.fail("not needed"))
    return str(failed.value)


# TLS


def test_a_client_with_the_authority_gets_in_and_others_are_told_why_not(
    seeded_model: ModelFolder, authority: Authority, stranger: Authority, pair: Pair
) -> None:
    async def run() -> None:
        tls = ServerTls(pair.cert, pair.key, None)
        async with serving([noop(seeded_model)], tls=tls) as address:
            own = dataclasses.replace(SETTINGS, tls=tls).client_access()
            assert await scored(address, own) == 2
            named = access(ca=authority.pem, server_name="rerank.example")
            assert await scored(address, named) == 2
            assert "the server wants TLS: give server.tls.ca=FILE" in await opened(address, OPEN)
            for how, reason in (
                (access(ca=authority.pem), "not valid for '127.0.0.1'"),
                (access(ca=stranger.pem, server_name="rerank.example"), "local issuer"),
            ):
                assert (await status_of(scored(address, how)))[0] is grpc.StatusCode.UNAVAILABLE
                told = await asyncio.to_thread(connection_fault, address, how)
                assert "the server's certificate is refused" in told
                assert reason in told
                assert "server.tls.server_name" in told
        async with serving([noop(seeded_model)]) as address:
            told = await opened(address, access(ca=authority.pem))
            assert f"{address} cannot be used: the server has no TLS: leave out" in told
            assert await asyncio.to_thread(connection_fault, address, OPEN) == ""

    asyncio.run(run())


def test_mutual_tls_accepts_certificates_of_its_authorities_and_its_own(
    seeded_model: ModelFolder, authority: Authority, stranger: Authority, pair: Pair
) -> None:
    async def run() -> None:
        # Clients have another authority than the server: the two have nothing to do with each other
        tls = ServerTls(pair.cert, pair.key, stranger.pem)
        named = {"ca": authority.pem, "server_name": "rerank.example"}
        trusted = stranger.issue("trusted")
        other = authority.issue("other")
        async with serving([noop(seeded_model)], tls=tls) as address:
            own = dataclasses.replace(SETTINGS, tls=tls).client_access()
            assert await scored(address, own) == 2
            assert await scored(address, access(**named, cert=trusted.cert, key=trusted.key)) == 2
            told = await opened(address, access(**named))
            assert "wants a certificate from its clients: give server.tls.cert" in told
            told = await opened(address, access(**named, cert=other.cert, key=other.key))
            assert "does not trust the certificate in" in told

    asyncio.run(run())


def test_an_authority_in_the_server_s_own_file_does_not_let_its_customers_in(
    seeded_model: ModelFolder, folder: Path, authority: Authority, stranger: Authority, pair: Pair
) -> None:
    """A full chain has the certificate of a public authority, from which anybody may have one."""
    chain = folder / "chain.pem"
    chain.write_bytes(Path(pair.cert).read_bytes() + Path(authority.pem).read_bytes())
    customer = authority.issue("customer")

    async def run() -> None:
        tls = ServerTls(str(chain), pair.key, stranger.pem)
        async with serving([noop(seeded_model)], tls=tls) as address:
            own = dataclasses.replace(SETTINGS, tls=tls).client_access()
            assert await scored(address, own) == 2
            shown = dataclasses.replace(own, cert=customer.cert, key=customer.key)
            assert (await status_of(scored(address, shown)))[0] is grpc.StatusCode.UNAVAILABLE

    asyncio.run(run())


def test_files_that_cannot_be_used_are_refused_in_words(
    folder: Path, authority: Authority, pair: Pair
) -> None:
    text = folder / "text"
    text.write_text("no certificate")
    expired, other = authority.issue("expired", days=-1), authority.issue("other", "b.example")
    locked = authority.issue("locked", password=b"secret")
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: ServerTls(pair.cert, None, None), r"cert is given without server\.tls\.key"),
        (lambda: ServerTls(None, pair.key, None), r"key is given without server\.tls\.cert"),
        (lambda: ServerTls(None, None, authority.pem), r"client_ca is given without"),
        (lambda: ServerTls("absent.pem", pair.key, None), r"cert=absent\.pem cannot be read \(No"),
        (lambda: ServerTls(str(folder), pair.key, None), r"cannot be read \(Is a directory\)"),
        (lambda: ServerTls(str(text), pair.key, None), r"tls\.cert=\S+ has no certificate in PEM"),
        (lambda: ServerTls(pair.cert, str(text), None), r"key=\S+ has no private key in PEM"),
        (lambda: ServerTls(pair.cert, other.key, None), "key values mismatch.*give the key of"),
        (lambda: ServerTls(locked.cert, locked.key, None), "without a password"),
        (lambda: ServerTls(expired.cert, expired.key, None), "refused by clients .*has expired"),
        (lambda: ServerTls(pair.cert, pair.key, str(text)), r"client_ca=\S+ has no certificate"),
        (lambda: access(ca=str(text)), r"server\.tls\.ca=\S+ has no certificate"),
        (lambda: access(cert=pair.cert, key=pair.key), r"given without server\.tls\.ca"),
        (lambda: access(ca=authority.pem, key=pair.key), r"key is given without"),
        (lambda: access(token_file="absent"), r"server\.token_file=absent cannot be read"),
        (lambda: access(token_file=str(text)), "has no token of at least 16 letters"),
    ]
    for make, message in cases:
        with pytest.raises(ConfigError, match=message):
            make()


def test_a_cell_is_refused_before_anything_is_loaded(pair: Pair) -> None:
    for override, message in (
        (f"server.tls.cert={pair.cert}", r"cert is given without server\.tls\.key"),
        ("server.token_file=absent", r"server\.token_file=absent cannot be read"),
        ("server.connections.idle_s=0", r"server\.connections\.idle_s must be more than 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            check_config(config_of(override))
    remote = ("target=remote", "server=remote", "server.address=127.0.0.1:1")
    with pytest.raises(ConfigError, match=r"server\.tls\.ca=absent cannot be read"):
        check_config(config_of(*remote, "server.tls.ca=absent"))


# The token


def test_every_rpc_but_health_needs_the_token(seeded_model: ModelFolder, token_file: str) -> None:
    """The message of a refused call is not even decoded."""

    async def run() -> None:
        async with serving([noop(seeded_model)], token_file=token_file) as address:
            right = access(token_file=token_file)
            assert await scored(address, right) == 2
            async with grpc.aio.insecure_channel(address) as channel:
                service = "/crossbench.v1.Inference/"
                wrong = (("authorization", f"Bearer {TOKEN}x"),)
                for metadata in (None, wrong, (("authorization", TOKEN),)):
                    for name in ("Score", "ScorePairs", "Embed", "GetInfo", "ResetMetrics"):
                        call = channel.unary_unary(service + name)(b"\xff", metadata=metadata)
                        code, told = await status_of(call)
                        assert code is grpc.StatusCode.UNAUTHENTICATED
                        assert "give the client server.token_file=FILE" in told
                        assert TOKEN not in told
                streams = (
                    channel.unary_stream(f"{service}WatchMetrics")(b""),
                    channel.stream_stream(
                        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
                    )(iter([b""])),
                )
                for stream in streams:
                    assert (await status_of(stream.read()))[0] is grpc.StatusCode.UNAUTHENTICATED
                health = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
                answer = await health.Check(health_pb2.HealthCheckRequest())
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
            async with InferenceClient(address, right) as client:
                await client.ready(5.0)
                await client.info()
                metrics = await client.metrics()
                assert metrics.requests_failed == {"UNAUTHENTICATED": 16}
                assert (await anext(client.watch_metrics(1.0))).requests_ok == 1
                await client.reset_metrics()
            told = await opened(address, OPEN)
            assert f"{address} refuses this client: UNAUTHENTICATED" in told

    asyncio.run(run())


def test_a_secret_that_others_can_read_and_an_open_door_are_told(
    authority: Authority, token_file: str, pair: Pair
) -> None:
    def told(**changes: Any) -> str:
        return " | ".join(dataclasses.replace(SETTINGS, **changes).warnings())

    tls = ServerTls(pair.cert, pair.key, None)
    mutual = ServerTls(pair.cert, pair.key, authority.pem)
    for host in ("127.0.0.1", "::1", "localhost"):
        assert told(host=host) == ""
    everyone, readable = "everyone who can reach this machine may use the server", "can read what"
    for host in ("0.0.0.0", "::", "10.1.2.3", "rerank.example"):
        assert everyone in told(host=host)
        assert readable in told(host=host)
    assert everyone in (text := told(host="0.0.0.0", tls=tls))
    assert readable not in text
    assert everyone not in (text := told(host="0.0.0.0", token_file=token_file))
    assert readable in text
    assert told(host="0.0.0.0", tls=tls, token_file=token_file) == ""
    assert told(host="0.0.0.0", tls=mutual) == ""
    careless = authority.issue("careless", mode=0o644)
    text = told(tls=ServerTls(careless.cert, careless.key, None))
    assert re.search(r"server\.tls\.key=\S+ can be read by other users of this machine", text)
    Path(token_file).chmod(0o640)
    assert "server.token_file" in told(token_file=token_file)
    (first, second) = access(token_file=token_file).warnings("rerank.example:50051")
    assert "can be read by other users" in first
    assert "travels in plain text to rerank.example" in second
    assert len(access(token_file=token_file).warnings("127.0.0.1:50051")) == 1


@pytest.mark.slow
def test_a_cell_with_all_of_it_keeps_the_token_out_of_every_file(
    outputs: Path, environment: dict[str, str], authority: Authority, pair: Pair, token_file: str
) -> None:
    """Client, server process and dashboard's journal find the token by the path of its file."""
    overrides = (
        f"server.tls.cert={pair.cert}", f"server.tls.key={pair.key}",
        f"server.tls.client_ca={authority.pem}", f"server.token_file={token_file}",
    )  # fmt: skip
    Path(token_file).chmod(0o644)
    ended = crossbench(
        "backend=noop", "target=process", "quality=none", "tracker=none", *QUICK, *overrides,
        outputs=outputs, environment=environment,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    (result,) = results(the_sweep(outputs))
    assert any("server.token_file" in str(warning) for warning in result["warnings"])  # type: ignore[attr-defined]
    written = [path for path in outputs.rglob("*") if path.is_file()]
    assert len(written) > 3
    assert not [path for path in written if TOKEN.encode() in path.read_bytes()]
    assert TOKEN not in ended.stdout + ended.stderr
