"""What the dashboard bears: many, slow and silent connections, and pages that nobody opens."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.helpers.dashboards import RunningDashboard, running_dashboard

MAX_PAGES = 3
HALF_SENT = {
    "silent": b"",
    "half a request line": b"GET / HT",
    "half the headers": b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ",
    "half a body": b"POST /nothing HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\nab",
    "takes no answer": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 2000,
}


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDashboard]:
    with running_dashboard(tmp_path_factory.mktemp("bounds"), max_pages=MAX_PAGES) as running:
        yield running
        assert running.log.read_text("utf-8") == ""


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition was never met"
        time.sleep(0.05)


def idle_fds(dashboard: RunningDashboard) -> int:
    """The file descriptors of a dashboard that has answered and has no connection any more."""
    httpx.get(dashboard.url)
    until(lambda: not [end for end in dashboard.process.net_connections() if end.raddr])
    return dashboard.process.num_fds()


def connected(dashboard: RunningDashboard, sent: bytes = b"") -> socket.socket:
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    connection.settimeout(60)
    connection.connect(("127.0.0.1", dashboard.port))
    connection.sendall(sent)
    return connection


@contextlib.contextmanager
def opened_socket(dashboard: RunningDashboard, page: str) -> Iterator[ClientConnection]:
    """The web socket of a page, as a browser opens it."""
    client_id = re.search(r"'client_id': '([^']+)'", page)
    assert client_id is not None, page[-2000:]
    query = f"client_id={client_id[1]}&implicit_handshake=true&tab_id=t&document_id=d"
    with connect(f"{dashboard.socket_url}&{query}&next_message_id=0", compression=None) as opened:
        opened.recv()
        opened.send("40")  # connect to Socket.IO
        yield opened


def test_a_page_that_no_browser_uses_is_served_again(dashboard: RunningDashboard) -> None:
    pages = {httpx.get(f"{dashboard.url}/?{number}").text for number in range(20)}
    assert len(pages) <= 2  # it is renewed every five seconds
    # No header of one request may change the page of another
    odd = {"x-forwarded-prefix": "/evil", "accept": "text/markdown"}
    assert "evil" not in httpx.get(dashboard.url, headers=odd).text
    assert "evil" not in httpx.get(dashboard.url).text


def test_pages_and_web_sockets_are_bounded(dashboard: RunningDashboard) -> None:
    with contextlib.ExitStack() as stack:
        seen = set()
        for _ in range(MAX_PAGES):
            page = httpx.get(dashboard.url).raise_for_status().text
            assert page not in seen  # each browser has its own
            seen.add(page)
            opened = stack.enter_context(opened_socket(dashboard, page))
            until(lambda opened=opened: str(opened.recv(5)).startswith("40"))  # type: ignore[misc]
        refused = httpx.get(dashboard.url)
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) > 0
        assert "dashboard.max_pages" in refused.text
        with pytest.raises(InvalidStatus) as one_more:
            connect(dashboard.socket_url).__enter__()
        assert one_more.value.response.status_code == 503
        assert httpx.get(f"{dashboard.url}/metrics").status_code == 200
    until(lambda: httpx.get(dashboard.url).status_code == 200)


def test_the_page_has_no_polling_sessions(dashboard: RunningDashboard) -> None:
    polling = f"{dashboard.url}/_nicegui_ws/socket.io/?EIO=4&transport=polling"
    for answer in (httpx.get(polling), httpx.post(polling, content=b"40")):
        assert (answer.status_code, "web sockets" in answer.text) == (400, True)


def test_too_long_headers_and_messages_are_refused(dashboard: RunningDashboard) -> None:
    with contextlib.suppress(httpx.TransportError):  # it may be closed while it still sends
        long = httpx.get(dashboard.url, headers={"x": "y" * 1_000_000})
        assert long.status_code == 400
    with connect(dashboard.socket_url) as opened:
        opened.recv()
        opened.send("4" + "x" * 200_000)
        with pytest.raises(ConnectionClosed):
            list(opened)
    # uvicorn tells of the first one
    dashboard.log.write_text("", "utf-8")


def test_held_connections_do_not_keep_others_out(dashboard: RunningDashboard) -> None:
    before = idle_fds(dashboard)
    held = [connected(dashboard, b"GET /" if number % 2 else b"") for number in range(500)]
    assert httpx.get(f"{dashboard.url}/metrics").status_code == 200
    assert httpx.get(dashboard.url).status_code == 200
    assert dashboard.process.num_fds() < before + 300
    for connection in held:
        connection.close()
    until(lambda: dashboard.process.num_fds() <= before)


@pytest.mark.slow
def test_slow_and_silent_connections_are_closed(tmp_path: Path) -> None:
    with running_dashboard(tmp_path) as dashboard:
        hold_every_kind(dashboard)


def hold_every_kind(dashboard: RunningDashboard) -> None:
    before = idle_fds(dashboard)
    held = [connected(dashboard, sent) for sent in HALF_SENT.values()]
    dripping = connected(dashboard, b"GET / HTTP/1.1\r\n")
    silent = connect(dashboard.socket_url, compression=None, ping_interval=None)
    silent.__enter__()
    until(lambda: dashboard.process.num_fds() >= before + len(held))

    def all_closed() -> bool:
        with contextlib.suppress(OSError):
            dripping.send(b"X: y\r\n")
        assert httpx.get(f"{dashboard.url}/metrics").status_code == 200
        return dashboard.process.num_fds() <= before

    until(all_closed)
    for connection in (*held, dripping):
        connection.close()
    silent.socket.close()


HANDSHAKE = (
    b"GET /_nicegui_ws/socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
ANSWERED_FRAME = b"\x81\x85" + bytes(4) + b"40/x,"  # Socket.IO refuses this with a message
ALIVE_FRAME = b"\x81\x81" + bytes(4) + b"3"  # without it, Socket.IO ends the session after 6 s


@pytest.mark.slow
def test_a_web_socket_that_never_reads_is_closed(tmp_path: Path) -> None:
    with running_dashboard(tmp_path) as dashboard:
        before = idle_fds(dashboard)
        with contextlib.closing(connected(dashboard, HANDSHAKE)) as unread:
            assert unread.recv(12).endswith(b"101")
            unread.settimeout(0.1)
            block = pending = (ANSWERED_FRAME * 50 + ALIVE_FRAME) * 40

            def fill() -> bool:
                nonlocal pending
                with contextlib.suppress(OSError):
                    pending = pending[unread.send(pending) :] or block
                return dashboard.process.num_fds() <= before

            until(fill, 60)


PARENT = """
import sys, time
from pathlib import Path
from crossbench.dashboard.process import WebDashboard
web = WebDashboard("web", "127.0.0.1", 0, False, None, 4)
web.start(Path(sys.argv[1]) / "events.jsonl")
if sys.argv[2] == "ready":
    web.ready()
print(web._process.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("stage", ["starting", "ready"])
def test_the_dashboard_ends_with_a_killed_parent(tmp_path: Path, stage: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path), stage], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    dashboard = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    # Gone, or ended but not yet collected where process 1 collects nothing
    until(lambda: not dashboard.is_running() or dashboard.status() == psutil.STATUS_ZOMBIE)
