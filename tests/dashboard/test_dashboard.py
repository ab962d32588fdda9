"""The dashboard: its page in Chromium, its HTTP routes, and its process during a sweep."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from crossbench.dashboard.board import Board
from crossbench.dashboard.charts import CHARTS
from crossbench.dashboard.content import status_text
from crossbench.dashboard.document import document
from crossbench.dashboard.figures import GpuUse
from crossbench.dashboard.journal import FileJournal, JournalReader
from crossbench.dashboard.process import JOURNAL_FILE, WebDashboard
from crossbench.dashboard.prometheus import BoardCollector
from crossbench.dashboard.tiles import tiles
from crossbench.dashboard.watch import Watcher
from crossbench.errors import DashboardError
from crossbench.events import (
    CellEnded,
    CellStarted,
    Event,
    FlagsChanged,
    ProgressMade,
    Recorded,
    RunEnded,
    ServerConfigured,
    ServerListens,
    ServerStops,
    StageStarted,
    SweepStarted,
    WindowMeasured,
    encode,
)
from crossbench.models.folder import ModelFolder
from crossbench.serving import inference_pb2 as pb
from crossbench.serving.client import InferenceClient
from crossbench.serving.exposition import exposition
from crossbench.settings.flatten import flatten_text
from tests.helpers.pages import opened, tile, until_page, wait_for_status
from tests.helpers.places import REPO
from tests.helpers.serving import noop, serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PASSAGES = ["a passage of a few words", "another one"] * 4


class LiveServer:
    """A noop server on a fixed port that can be stopped, started and sent requests."""

    def __init__(self, model: ModelFolder) -> None:
        self._model = model
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._stack = contextlib.AsyncExitStack()
        self.port = 0
        self.start()

    def start(self) -> None:
        context = serving([noop(self._model)], port=self.port, grace_s=25.0)
        self.address = self._run(self._stack.enter_async_context(context))
        self.port = int(self.address.rsplit(":", 1)[1])

    def stop(self) -> None:
        self._run(self._stack.aclose())

    def send(self, requests: int, wrong: int = 0) -> None:
        async def run() -> None:
            async with InferenceClient(self.address) as client:
                for _ in range(requests):
                    await client.score("a query", PASSAGES)
                for _ in range(wrong):
                    with contextlib.suppress(grpc.aio.AioRpcError):
                        await client.score("a query", [])

        self._run(run())

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)


@pytest.fixture(scope="module")
def server(seeded_model: ModelFolder) -> Iterator[LiveServer]:
    live = LiveServer(seeded_model)
    yield live
    live.stop()


@pytest.fixture(scope="module")
def url(server: LiveServer) -> Iterator[str]:
    """The URL of a dashboard for that server, started from the command line."""
    command = [sys.executable, "-m", "crossbench.dashboard", f"server.address={server.address}"]
    process = subprocess.Popen(
        [*command, "dashboard.port=0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    found = re.search(r"http://\S+", process.stdout.readline())
    assert found, process.communicate(timeout=5)
    until(lambda: metrics(found[0])["status"] == "connected")
    yield found[0]
    process.terminate()
    rest, _ = process.communicate(timeout=60)
    assert rest == ""


def metrics(url: str) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = httpx.get(f"{url}/metrics", timeout=60).raise_for_status().json()
    except httpx.ConnectError:
        return {"status": "not up yet"}
    return answer


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition was never met"
        time.sleep(0.1)


# HTTP routes


def test_metrics_count_requests_until_a_reset(server: LiveServer, url: str) -> None:
    assert httpx.post(f"{url}/reset").json() == {"reset": True}
    server.send(5, wrong=2)
    until(lambda: metrics(url)["requests"]["ok"] == 5)
    found = metrics(url)
    assert found["requests"]["failed"] == {"INVALID_ARGUMENT": 2}
    assert found["pairs"] == 5 * len(PASSAGES)
    assert found["latency_ms"]["count"] == 5
    assert 0 < found["latency_ms"]["p50"] <= found["latency_ms"]["p99"]
    assert found["stages_ms"]["tokenize"]["mean"] > 0
    assert found["batching"]["pairs_per_batch"] == len(PASSAGES)
    assert found["memory"]["rss_mb"] > 50
    assert found["server"]["model"] == "minilm-l6-seeded"
    assert httpx.get(f"{url}/reset").json() == {"reset": True}
    until(lambda: metrics(url)["latency_ms"]["count"] == 0)
    assert metrics(url)["requests"] == {"ok": 0, "failed": {}, "in_flight": 0}


PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;"
    "q=0.4,text/plain;version=1.0.0;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)


@pytest.mark.parametrize(
    ("path", "accept", "kind"),
    [
        ("/metrics", "*/*", "application/json"),
        ("/metrics", "application/json", "application/json"),
        ("/metrics", "text/html,application/xhtml+xml,*/*;q=0.8", "application/json"),
        ("/metrics", "text/plain", "text/plain"),
        ("/metrics", PROMETHEUS, "application/openmetrics-text"),
        ("/metrics/prometheus", "*/*", "text/plain"),
        ("/metrics/prometheus", "application/json", "text/plain"),
        ("/metrics", "application/openmetrics-text;version=new", "text/plain"),
    ],
)
def test_metrics_have_the_requested_format(url: str, path: str, accept: str, kind: str) -> None:
    answer = httpx.get(f"{url}{path}", headers={"accept": accept}).raise_for_status()
    assert answer.headers["content-type"].split(";")[0] == kind
    if kind == "application/json":
        assert answer.json()["status"] == "connected"
    else:
        assert "crossbench_up 1.0" in answer.text
    if kind == "application/openmetrics-text":
        assert answer.text.endswith("# EOF\n")


def test_pages_of_other_sites_can_neither_reset_nor_read(server: LiveServer, url: str) -> None:
    server.send(1)
    until(lambda: metrics(url)["requests"]["ok"] >= 1)
    for method, headers in (
        ("GET", {"sec-fetch-site": "cross-site"}),
        ("GET", {"sec-fetch-site": "same-site"}),  # another port of this machine
        ("GET", {"referer": "http://evil.example/page"}),
        ("POST", {"origin": "http://evil.example"}),
        ("POST", {"origin": "null"}),
        ("GET", {"sec-purpose": "prefetch", "sec-fetch-site": "none"}),
        ("GET", {"origin": "http://["}),
        ("GET", {"host": "evil.example"}),
    ):
        answer = httpx.request(method, f"{url}/reset", headers=headers)
        assert answer.status_code == 403, (method, headers)
    for path in ("/", "/metrics"):
        refused = httpx.get(f"{url}{path}", headers={"host": "evil.example:8080"})
        assert refused.status_code == 403
        assert "evil.example" in refused.text
    assert httpx.head(f"{url}/reset").status_code in (404, 405)
    assert metrics(url)["requests"]["ok"] >= 1
    own = {"origin": url, "sec-fetch-site": "same-origin"}
    assert httpx.post(f"{url}/reset", headers=own).status_code == 200
    typed = {"sec-fetch-site": "none", "host": f"localhost:{httpx.URL(url).port}"}
    assert httpx.get(f"{url}/reset", headers=typed).status_code == 200


def tell(board: Board, event: Event, time_s: float = 0.0, cell: int | None = None) -> None:
    board.apply(Recorded(event, time_s, cell))


def test_the_status_tells_the_flags_of_the_last_seconds() -> None:
    board = filled_board()
    disturbed = FlagsChanged({"disturbed": "others used 1.2 cores."})
    tell(board, disturbed, cell=2)
    assert status_text(board) == "cell 3 of 4: measuring; disturbed: others used 1.2 cores."
    tell(board, FlagsChanged({}), cell=2)
    assert status_text(board) == "cell 3 of 4: measuring"
    tell(board, disturbed, cell=2)
    tell(board, StageStarted("checking"), cell=2)
    assert status_text(board) == "cell 3 of 4: checking"


def filled_board() -> Board:
    """A board in the middle of a sweep on a machine with a GPU, with data for every metric."""
    board = Board(None)
    config = {"backend": "noop", "batch": "32"}
    tell(board, SweepStarted("s", cells=4))
    for cell, status in ((0, "finished"), (1, "unavailable")):
        tell(board, CellStarted(f"noop {cell}", config), 10.0 * cell, cell)
        figures = {"throughput/pairs_per_s": 100.0} if status == "finished" else {}
        tell(board, CellEnded(status, None, False, figures), 10.0 * cell + 10, cell)
    tell(board, CellStarted("noop 2", config), 20.0, 2)
    tell(board, StageStarted("measuring"), 21.0, 2)
    tell(board, ServerListens("127.0.0.1:1", {}), 21.0, 2)
    board.connected(pb.ServerInfo(models=[pb.ModelInfo(name="m", backend="noop")]))
    tell(board, WindowMeasured(3, {"UNAVAILABLE": 1}, 30.0, 5.0, 6.0, 7.0), 22.0, 2)
    tell(board, ProgressMade(done=20, share=0.2, pairs_per_s=30.0, p50_ms=5.0), 22.0, 2)
    for second in (1, 2):
        distribution = pb.Distribution(count=2, mean=5, p50=5, p95=6, p99=7)
        message = pb.Metrics(
            since_reset_s=second,
            requests_ok=10 * second,
            requests_failed={"INTERNAL": second},
            pairs=80 * second,
            batches=5 * second,
            batch_pairs=80 * second,
            batch_tokens=600 * second,
            tokens_computed=800 * second,
            latency_ms=distribution,
            queue_sum_ms=20.0 * second,
            device_memory_mb=10,
        )
        message.tokenize_ms.CopyFrom(distribution)
        board.sample(message, (GpuUse(0, "GPU", 0.5, 100.0, 1000.0),), 21.0 + second)
    return board


def test_the_grafana_dashboard_uses_existing_metrics() -> None:
    text, _ = exposition(BoardCollector(filled_board()), "")
    exported = {
        sample.name
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }
    dashboard = json.loads((REPO / "docs/grafana.json").read_text("utf-8"))
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked = {name for query in queries for name in re.findall(r"\bcrossbench_\w+", query)}
    assert len(asked) > 15
    assert asked <= exported


def test_a_board_computes_intervals_time_left_and_counts_since_a_reset() -> None:
    board = filled_board()
    assert board.server.last is not None
    interval = board.server.last.interval
    assert (interval.pairs, interval.pairs_per_batch, interval.padding_waste) == (80, 16, 0.25)
    assert interval.mean_ms("queue") == 2.0
    assert board.status == "measuring"
    assert board.cell_share() == 0.2
    assert board.time_left_s(25.0) == 15.0  # two cells of ten seconds each, minus five seconds
    shown = document(board, 23.0)
    assert shown["sweep"]["results"][0]["throughput/pairs_per_s"] == 100.0
    assert shown["client"]["failed"] == {"UNAVAILABLE": 1}
    json.dumps(shown)
    board.reset()  # while a cell is measured, the server is not reset
    assert (board.server.totals.pairs, board.server.failed, len(board.windows)) == (0, {}, 0)
    after = pb.Metrics(since_reset_s=3, requests_ok=31, requests_failed={"INTERNAL": 3}, pairs=250)
    board.sample(after, (), 24.0)
    assert (board.server.totals.requests_ok, board.server.totals.pairs) == (11, 90)
    assert board.server.failed == {"INTERNAL": 1}
    board.sample(pb.Metrics(since_reset_s=0.5, pairs=7), (), 25.0)  # reset by another client
    assert board.server.totals.pairs == 7


def test_charts_and_tiles_show_the_unit_of_the_cell() -> None:
    board = Board(None)
    headings = [chart.heading(board) for chart in CHARTS]
    assert headings[0] == "Throughput, pairs/s"
    config = flatten_text({"load": {"name": "closed", "task": "embed"}})
    tell(board, ServerConfigured(config))
    embedding = [chart.heading(board) for chart in CHARTS]
    assert embedding == [heading.replace("pairs", "texts") for heading in headings]
    assert next(tiles(board, None)).unit == "texts/s"


def test_credentials_of_the_configuration_are_not_shown() -> None:
    board = Board(None)
    uri = {"name": "mlflow", "uri": "https://me:secret@host/x"}
    tell(board, ServerConfigured(flatten_text({"tracker": uri})))
    assert "secret" not in json.dumps(document(board, 0.0))
    assert board.settings == {"tracker": "mlflow", "tracker.uri": "https://***@host/x"}


def test_the_journal_is_read_in_complete_lines(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    reader, journal = JournalReader(path), FileJournal(path, cell=3)
    assert list(reader.new()) == []
    begun_s = time.time()
    journal.write(StageStarted("warming up"))
    line = encode(StageStarted("measuring"), 5.0)
    with path.open("a") as file:
        file.write(line[:20])
    (first,) = reader.new()
    assert (first.event, first.cell) == (StageStarted("warming up"), 3)
    assert begun_s <= first.time_s <= time.time()
    assert list(reader.new()) == []
    with path.open("a") as file:
        file.write(line[20:])
    assert list(reader.new()) == [Recorded(StageStarted("measuring"), 5.0, None)]


def test_invalid_lines_and_lines_of_other_versions_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    journal, board = FileJournal(path), Board(None)
    journal.write(SweepStarted("s", cells=2))
    with path.open("ab") as file:
        file.write(encode(CellStarted("lost", {}), 0.0, 0).encode()[:40] + b"\n")
        file.write(b'{"time_s": 1, "event": "OfTheFuture"}\n\xff\x00\n\n[]\n')
    # Of the cell whose start was lost
    FileJournal(path, 0).write(CellEnded("finished", None, False, {}))
    journal.write(CellStarted("of no cell", {}))
    FileJournal(path, 1).write(CellStarted("kept", {}))
    watcher = Watcher(board, path)
    watcher.read_journal()
    assert board.cells_planned == 2
    assert [row.label for row in board.cells.values()] == ["kept"]


def test_a_server_that_announces_its_stop_is_not_disconnected() -> None:
    board = filled_board()
    board.disconnected(lost=True)
    assert board.status == "disconnected"
    tell(board, ServerStops(), 23.0, 2)
    assert (board.status, board.address) == ("measuring", None)
    tell(board, RunEnded("report: r.md", False), 24.0)
    assert (board.status, board.ended) == ("ended", "report: r.md")


# The dashboard process


def test_a_taken_port_is_replaced_and_the_process_ends_with_its_parent(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        dashboard = WebDashboard("web", "127.0.0.1", port, False, None, 4)
        dashboard.start(tmp_path / JOURNAL_FILE)
        address = dashboard.ready()
        assert address is not None
        assert address != f"http://127.0.0.1:{port}"
        assert dashboard.note == f"port {port} is taken"
        assert metrics(address)["status"] == "waiting"
        dashboard.close()
    assert metrics(address)["status"] == "not up yet"
    assert list(tmp_path.iterdir()) == []  # an empty log is removed


def test_a_dashboard_that_cannot_start_reports_the_reason(tmp_path: Path) -> None:
    dashboard = WebDashboard(
        "web", "203.0.113.1", 8080, False, None, 4
    )  # not an address of this machine
    dashboard.start(tmp_path / JOURNAL_FILE)
    reason = r"dashboard\.host=203\.0\.113\.1 is not an address of this machine"
    with pytest.raises(DashboardError, match=reason):
        dashboard.ready()


# The page in a browser


def requests(page: Page) -> int:
    return int(tile(page, "Requests").replace(",", ""))


def test_figures_update_and_a_reset_zeroes_them(
    server: LiveServer, url: str, browser: Browser
) -> None:
    httpx.post(f"{url}/reset")
    with opened(browser, url) as page:
        wait_for_status(page, f"connected to {server.address}")
        assert page.locator(".chart svg").count() >= 6
        server.send(7)
        until_page(page, lambda: tile(page, "Requests") == "7")
        assert float(tile(page, "Latency p95")) > 0
        before = page.locator("[data-chart=server_throughput] svg").inner_html()
        server.send(3, wrong=1)
        until_page(page, lambda: tile(page, "Requests") == "10")
        errors = page.get_by_role("region", name="Errors by status").first
        assert "INVALID_ARGUMENT" in errors.inner_text()
        moved = "[data-chart=server_throughput] svg"
        until_page(page, lambda: page.locator(moved).inner_html() != before)
        # With the keyboard, the first element to reach is the reset button
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.innerText") == "Reset"
        page.keyboard.press("Enter")
        until_page(page, lambda: tile(page, "Requests") == "0")
        until_page(page, lambda: tile(page, "Latency p95") == "–")
        assert page.evaluate("window.shifts") < 0.01


def test_the_page_shows_a_lost_server_and_reconnects(
    server: LiveServer, url: str, browser: Browser
) -> None:
    with opened(browser, url) as page:
        begun = time.monotonic()
        server.stop()
        assert (
            time.monotonic() - begun < 20
        )  # stopping does not wait 25 s for a client that only watches
        wait_for_status(page, f"disconnected from {server.address}")
        assert metrics(url)["status"] == "disconnected"
        assert "crossbench_up 0.0" in httpx.get(f"{url}/metrics/prometheus").text
        assert "crossbench_pairs_total" not in httpx.get(f"{url}/metrics/prometheus").text
        server.start()
        wait_for_status(page, f"connected to {server.address}")
        server.send(2)
        until_page(page, lambda: tile(page, "Requests") == "2")


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_the_screen_in_each_theme(url: str, browser: Browser, width: int) -> None:
    with opened(browser, url, width, "dark") as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        if width > 1000:
            return
        ground = "getComputedStyle(document.body).backgroundColor"
        dark = page.evaluate(ground)
        theme = page.get_by_role("button", name="Theme")
        theme.click()  # system, then dark, then light
        theme.click()
        until_page(page, lambda: theme.inner_text() == "Theme: light")
        until_page(page, lambda: page.evaluate(ground) != dark)
        page.reload()
        until_page(page, lambda: theme.inner_text() == "Theme: light")
        until_page(page, lambda: page.evaluate(ground) != dark)


@pytest.mark.slow
def test_a_sweep_is_shown_and_a_screenshot_taken(
    tmp_path: Path, seeded_model: ModelFolder, browser: Browser
) -> None:
    command: Sequence[str] = [
        sys.executable, "-m", "crossbench", "-m", "backend=noop,pytorch", "quant=int4", "batch=4",
        "max_seconds=5", "requests=1000000",
        "warmup_requests=1", "warmup_max_seconds=0.2", "stop=fixed", "dataset.queries=4",
        "dataset.passages_per_query=40", "dashboard.port=0", "dashboard.screenshot=true",
        "tracker=none", f"cache_dir={seeded_model.path.parent}", f"outputs_dir={tmp_path}",
    ]  # fmt: skip
    sweep = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert sweep.stderr is not None
    lines = (re.search(r"dashboard: (http://\S+)", line) for line in sweep.stderr)
    found = next(filter(None, lines))
    with opened(browser, found[1]) as page:
        wait_for_status(page, "cell 1 of 2: measuring", 40)
        until_page(page, lambda: tile(page, "Throughput") not in ("–", "0"))
        first = requests(page)
        until_page(page, lambda: requests(page) > first)
        assert "so far" in page.locator(".tile").first.inner_text()
        assert metrics(found[1])["config"]["batch"] == "4"
        # A reset of the counters does not change the measured cell
        assert httpx.post(f"{found[1]}/reset").json() == {"reset": True}
        wait_for_status(page, "2 of 2 cells, complete; report:", 60)
        cells = page.get_by_role("region").filter(has_text="2. pytorch").first.inner_text()
        assert "finished" in cells
        assert "unsupported" in cells
    _, rest = sweep.communicate(timeout=60)
    assert sweep.returncode == 0, rest
    (folder,) = tmp_path.iterdir()
    picture = (folder / "0" / "dashboard.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 20_000
    result = json.loads((folder / "0" / "result.json").read_text("utf-8"))
    assert not [text for text in result["warnings"] if "reset" in text]
