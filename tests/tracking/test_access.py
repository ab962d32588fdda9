"""MLflow servers that ask for a user or a token: the variables of MLflow are used, and named."""

from __future__ import annotations

import base64
import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from crossbench.errors import TrackingError
from crossbench.tracking.mlflow_store import MlflowTracker
from crossbench.tracking.protocol import CellRef
from tests.helpers.bad_servers import free_port
from tests.helpers.mlflow_server import mlflow_server

USER, PASSWORD, TOKEN = (f"MLFLOW_TRACKING_{name}" for name in ("USERNAME", "PASSWORD", "TOKEN"))
BASIC = f"Basic {base64.b64encode(b'me:secret').decode()}"


@contextmanager
def guard(wanted: str, status: int = 401, behind: int | None = None) -> Iterator[int]:
    """A proxy to the port `behind` that demands a header; yield its port.

    Others get the `status`, and everybody without a server behind it.
    """

    class Guard(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.headers.get("Authorization") != wanted or behind is None:
                self.send_error(status)
                return
            connection = http.client.HTTPConnection("127.0.0.1", behind)
            headers = {"Content-Type": self.headers.get("Content-Type", "")}
            connection.request(self.command, self.path, body, headers)
            reply = connection.getresponse()
            content = reply.read()
            self.send_response(reply.status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Guard)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (USER, PASSWORD, TOKEN):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # MLflow reads ~/.mlflow/credentials


def tracker_at(port: int) -> MlflowTracker:
    return MlflowTracker("mlflow", f"http://127.0.0.1:{port}", "crossbench", None, None, 20)


@pytest.mark.parametrize(
    ("given", "status", "words"),
    [
        ({}, 401, f"asks who you are: set {USER} and {PASSWORD}, or {TOKEN}, or measure without"),
        ({USER: "me", PASSWORD: "wrong"}, 401, f"refused {USER} and {PASSWORD} of the environment"),
        ({TOKEN: "wrong"}, 401, f"refused {TOKEN} of the environment"),
        ({TOKEN: "read-only"}, 403, "may not do that: ask for permission to edit"),
    ],
)
def test_a_refusal_names_what_was_given(
    given: dict[str, str], status: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with guard(BASIC, status) as port, pytest.raises(TrackingError, match=words) as caught:
        tracker_at(port).start_cell("cell", None, CellRef("sweep", 0))
    assert "is running" not in str(caught.value)
    assert not any(value in str(caught.value) for value in ("wrong", "secret"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wanted", "given"),
    [
        (BASIC, {USER: "me", PASSWORD: "secret", TOKEN: "another"}),
        ("Bearer secret", {TOKEN: "secret"}),
    ],
)
def test_the_variables_of_mlflow_open_a_server(
    wanted: str, given: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    behind = free_port()
    with mlflow_server(tmp_path, behind), guard(wanted, behind=behind) as port:
        tracker = tracker_at(port)
        run_id = tracker.start_cell("cell", None, CellRef("sweep", 0))
        assert [run.run_id for run in tracker.find("sweep")] == [run_id]
