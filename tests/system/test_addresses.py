"""Tests of host and port parsing, of recognising this machine, and of bypassing proxies."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import psutil
import pytest
import requests

from crossbench.dashboard.web import listen, url_of
from crossbench.errors import ConfigError, TargetUnreachable
from crossbench.models.folder import ModelFolder
from crossbench.runner.targets import Remote
from crossbench.serving.access import OPEN
from crossbench.serving.client import InferenceClient
from crossbench.system.addresses import (
    bypass_proxy,
    check_host,
    has_ipv6,
    is_this_machine,
    join_address,
    split_address,
)
from tests.helpers.serving import noop, serving

ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


@dataclass
class Proxy:
    """A listener that records the first line of each connection and closes it."""

    url: str
    received: list[str] = field(default_factory=list)


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy that all proxy variables of the environment point to."""
    listener = socket.create_server(("127.0.0.1", 0))
    proxy = Proxy(f"http://127.0.0.1:{listener.getsockname()[1]}")

    def accept_all() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    first_line = connection.recv(1000).decode("latin-1").partition("\r\n")[0]
                    proxy.received.append(first_line)

    threading.Thread(target=accept_all, daemon=True).start()
    for name in ("grpc_proxy", "http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.url)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "elsewhere.example")
    yield proxy
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "0.0.0.0", *(pytest.param(h, marks=ipv6) for h in ("::1", "::"))],
)
def test_client_bypasses_the_proxy_for_a_local_server(
    proxy: Proxy, seeded_model: ModelFolder, host: str
) -> None:
    async def score() -> tuple[str, int]:
        async with (
            serving([noop(seeded_model)], host=host) as address,
            InferenceClient(address) as client,
        ):
            return address, len((await client.score("a query", ["one", "two"])).scores)

    address, scores = asyncio.run(score())
    assert split_address(address, "server.address")[0] == host
    assert address.startswith("[") == (":" in host)
    assert scores == 2
    assert proxy.received == []


def test_error_for_an_unreachable_remote_server_names_the_proxy(proxy: Proxy) -> None:
    remote = Remote("remote", "server.example:50051", 0.5, OPEN, None)
    with pytest.raises(
        TargetUnreachable, match=r"grpc_proxy=http://127.* add server.example to no"
    ):
        asyncio.run(remote.open(lambda: None))  # type: ignore[arg-type, return-value]
    assert proxy.received[0].startswith("CONNECT server.example:50051")


def test_http_clients_bypass_the_proxy_for_this_machine(proxy: Proxy) -> None:
    """MLflow's client uses the `requests` library."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        with pytest.raises(requests.ConnectionError):
            requests.get(url, timeout=10)
        assert len(proxy.received) == 1
        bypass_proxy(url)
        assert requests.get(url, timeout=10).status_code == 200
        server.shutdown()
    bypass_proxy("http://mlflow.example:5000")
    bypass_proxy("sqlite:////somewhere/mlflow.db")
    assert requests.utils.should_bypass_proxies("http://elsewhere.example", None)
    assert not requests.utils.should_bypass_proxies("http://mlflow.example", None)
    assert len(proxy.received) == 1


def test_this_machine_is_recognised_by_its_names_and_addresses() -> None:
    own = [item.address for items in psutil.net_if_addrs().values() for item in items
           if item.family in (socket.AF_INET, socket.AF_INET6)]  # fmt: skip
    for host in (*own, socket.gethostname(), "LOCALHOST", "a.localhost", "localhost.", "127.8.9.1",
                 "::ffff:127.0.0.1", "[::1]", "ip6-localhost"):  # fmt: skip
        assert is_this_machine(host), host
    for host in ("203.0.113.1", "2001:db8::1", "127.example.com", "localhost.example", "remote"):
        assert not is_this_machine(host), host


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:50051", "127.0.0.1", 50051),
        ("[::1]:50051", "::1", 50051),
        ("::1:8080", "::1", 8080),  # the last part is always the port
        ("[fe80::1%eth0]:1", "fe80::1%eth0", 1),
        ("my-host.example:65535", "my-host.example", 65535),
    ],
)
def test_valid_addresses_are_split_and_joined(text: str, host: str, port: int) -> None:
    assert split_address(text, "server.address") == (host, port)
    assert split_address(join_address(host, port), "server.address") == (host, port)


@pytest.mark.parametrize(
    "text",
    ["", "localhost", ":50051", "::1", "[::1]", "http://localhost:50051", "localhost:0", "a:65536",
     "a:+1", "a b:1", "[localhost]:1", "localhost:50051/", "[::1:50051", "a:٣"],
)  # fmt: skip
def test_invalid_addresses_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"server\.address must be HOST:PORT, got .*::1:50051"):
        InferenceClient(text)


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ("", r"\.host is empty: give \w+\.host=127\.0\.0\.1"),
        ("127.0.0.1:50051", r"contains a port: give \w+\.host=127\.0\.0\.1 \w+\.port=50051"),
        ("[::1]:50051", r"contains a port: give \w+\.host=::1 \w+\.port=50051"),
        ("http://localhost", "must be a host name or address"),
        ("nowhere.invalid", "cannot be resolved"),
        ("203.0.113.1", "is not an address of this machine"),
        ("2001:db8::1", "is not an address of this machine|IPv6 is disabled"),
    ],
)
def test_each_kind_of_unusable_listen_host_has_its_own_error_message(
    seeded_model: ModelFolder, host: str, message: str
) -> None:
    async def serve() -> None:
        async with serving([noop(seeded_model)], host=host):
            pass

    with pytest.raises(ConfigError, match=message) as raised:
        asyncio.run(serve())
    assert str(raised.value).startswith("server.host")
    with pytest.raises(ConfigError, match=message) as raised:
        listen(host, 0)
    assert str(raised.value).startswith("dashboard.host")


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("localhost", "http://127.0.0.1:"),
        ("0.0.0.0", "http://127.0.0.1:"),
        *(pytest.param(h, "http://[::1]:", marks=ipv6) for h in ("::1", "[::1]", "::")),
    ],
)
def test_dashboard_url_is_reachable_from_this_machine(host: str, url: str) -> None:
    with listen(host, 0) as listener:
        assert url_of(listener) == f"{url}{listener.getsockname()[1]}"


def test_brackets_around_an_ipv6_host_are_optional() -> None:
    assert check_host("[::1]", "server") == check_host("::1", "server") == "::1"


def test_error_for_an_absent_local_server_does_not_mention_the_proxy(proxy: Proxy) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    message = f"no crossbench server answered at {address}"
    with pytest.raises(TargetUnreachable, match=message) as raised:
        asyncio.run(Remote("remote", address, 0.5, OPEN, None).open(lambda: None))  # type: ignore[arg-type, return-value]
    assert "proxy" not in str(raised.value)
    assert proxy.received == []
