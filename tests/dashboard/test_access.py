"""Who gets to the dashboard: other sites' web sockets, and the token."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from crossbench.dashboard.screenshot import find_browser, take_screenshot
from crossbench.dashboard.token import Cookie, check_token
from crossbench.dashboard.web import listen, notes_of
from crossbench.errors import ConfigError, DashboardError
from tests.helpers.dashboards import RunningDashboard, running_dashboard

TOKEN = "a+long/token=&4711"
BEARER = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDashboard]:
    with running_dashboard(tmp_path_factory.mktemp("open")) as running:
        yield running


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDashboard]:
    with running_dashboard(tmp_path_factory.mktemp("guarded"), TOKEN) as running:
        yield running
        assert running.log.read_text("utf-8") == ""


def status_of_socket(
    dashboard: RunningDashboard, host: str = "127.0.0.1", headers: dict[str, str] | None = None
) -> int:
    """The status of a web socket's handshake, sent for `host` from a client with `headers`."""
    url = dashboard.socket_url.replace("127.0.0.1", host)
    plain = socket.create_connection(("127.0.0.1", dashboard.port))
    try:
        with connect(url, sock=plain, additional_headers=headers or {}, open_timeout=30) as opened:
            opened.recv(30)
            return 101
    except InvalidStatus as refusal:
        return refusal.response.status_code
    finally:
        plain.close()


@pytest.mark.parametrize(
    ("host", "headers", "status"),
    [
        ("127.0.0.1", {}, 101),
        ("localhost", {}, 101),
        ("evil.example", {}, 403),
        ("127.0.0.1.evil.example", {}, 403),
        ("127.0.0.1", {"origin": "http://evil.example"}, 403),
        ("127.0.0.1", {"origin": "null"}, 403),
        ("127.0.0.1", {"origin": "http://127.0.0.1:1"}, 403),  # another port of this machine
        ("127.0.0.1", {"sec-fetch-site": "cross-site"}, 403),
        ("127.0.0.1", {"sec-fetch-site": "same-site"}, 403),
        ("evil.example", {"origin": "http://evil.example"}, 403),  # DNS rebinding
    ],
)
def test_web_sockets_of_other_sites_are_refused(
    opened: RunningDashboard, host: str, headers: dict[str, str], status: int
) -> None:
    assert status_of_socket(opened, host, headers) == status


def test_the_own_page_opens_a_web_socket(opened: RunningDashboard) -> None:
    assert status_of_socket(opened, headers={"origin": opened.url}) == 101


@pytest.mark.parametrize(
    "path",
    ["/", "/metrics", "/metrics/prometheus", "/reset", "/favicon.ico", "/nothing", "/?token=no",
     f"/metrics?token={TOKEN}", "/_nicegui_ws/socket.io/?EIO=4&transport=polling"],
)  # fmt: skip
def test_no_route_answers_without_the_token(guarded: RunningDashboard, path: str) -> None:
    cookie = Cookie.of(TOKEN, guarded.port)
    for headers in (
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": f"Basic {TOKEN}"},
        {"authorization": "Bearer"},
        {"authorization": b"Bearer \xff\xfe"},
        {"cookie": f"{cookie.name}={TOKEN}"},
        {"cookie": f"{cookie.name}=; {cookie.name}x={cookie.value}"},
    ):
        refused = httpx.get(f"{guarded.url}{path}", headers=headers)  # type: ignore[arg-type]
        assert refused.status_code == 401, headers
        assert refused.headers["www-authenticate"] == "Bearer"
        assert "Authorization: Bearer TOKEN" in refused.text


def test_programs_send_the_token(guarded: RunningDashboard) -> None:
    for path in ("/", "/metrics", "/metrics/prometheus"):
        assert httpx.get(f"{guarded.url}{path}", headers=BEARER).status_code == 200
    assert httpx.post(f"{guarded.url}/reset", headers=BEARER).json() == {"reset": True}
    assert status_of_socket(guarded) == 401
    assert status_of_socket(guarded, headers=BEARER) == 101
    # The token does not replace the other guards
    foreign = {**BEARER, "origin": "http://evil.example"}
    assert status_of_socket(guarded, headers=foreign) == 403
    assert httpx.post(f"{guarded.url}/reset", headers=foreign).status_code == 403


def test_a_browser_gets_a_cookie_and_a_url_without_the_token(guarded: RunningDashboard) -> None:
    with httpx.Client(base_url=guarded.url) as browser:
        invited = browser.get("/", params={"token": TOKEN})
        assert (invited.status_code, invited.headers["location"]) == (303, "/")
        cookie = invited.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert "secure" not in cookie
        assert TOKEN not in str(invited.headers)
        assert browser.get("/metrics").status_code == 200
        proxied = {"x-forwarded-proto": "https"}
        encrypted = browser.get("/", params={"token": TOKEN}, headers=proxied)
        assert "secure" in encrypted.headers["set-cookie"].lower()


def test_nobody_sees_the_token(guarded: RunningDashboard) -> None:
    assert not [word for word in guarded.process.cmdline() if TOKEN in word]
    assert TOKEN not in str(guarded.process.environ())
    assert TOKEN not in guarded.url + guarded.note
    assert "?token=TOKEN" in guarded.note
    page = httpx.get(guarded.url, headers=BEARER).text
    assert TOKEN not in page + httpx.get(f"{guarded.url}/metrics", headers=BEARER).text


@pytest.mark.parametrize("token", ["", "two words", "schlüssel", "line\nbreak"])
def test_a_token_that_no_header_can_carry_is_refused(tmp_path: Path, token: str) -> None:
    with pytest.raises(ConfigError, match=r"^dashboard\.token .*openssl rand") as error:
        check_token(token)
    assert not token or token not in str(error.value)


def test_the_child_reports_settings_that_it_refuses(tmp_path: Path) -> None:
    with (
        pytest.raises(DashboardError, match=r"dashboard\.max_pages must be 1 or more, got 0"),
        running_dashboard(tmp_path, max_pages=0),
    ):
        pass


def test_an_open_page_without_a_token_has_a_warning() -> None:
    for host, token, warned in (
        ("127.0.0.1", None, False), ("localhost", None, False),
        ("0.0.0.0", None, True), ("0.0.0.0", TOKEN, False),
    ):  # fmt: skip
        with contextlib.closing(listen(host, 0)) as listener:
            notes = " ".join(notes_of(listener, 0, token))
        assert ("everybody" in notes) == warned, host
        assert not warned or "dashboard.token" in notes


@pytest.mark.slow
def test_a_screenshot_of_a_page_with_a_token(guarded: RunningDashboard, tmp_path: Path) -> None:
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if find_browser() is None:
        pytest.skip("no Chromium or Chrome on this machine")
    picture = tmp_path / "page.png"
    take_screenshot(guarded.url, picture, TOKEN)
    assert picture.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(DashboardError, match="screenshot"):
        take_screenshot("http://127.0.0.1:9", picture, TOKEN)
