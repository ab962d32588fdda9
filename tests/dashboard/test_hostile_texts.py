"""Texts that people type, as an attack on the page and on Prometheus's text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from crossbench.dashboard.board import Board
from crossbench.dashboard.prometheus import BoardCollector
from crossbench.events import (
    CellEnded,
    CellStarted,
    FlagsChanged,
    Recorded,
    RunEnded,
    ServerConfigured,
    ServerListens,
    StageStarted,
    SweepStarted,
    WindowMeasured,
    decode,
    encode,
)
from crossbench.serving import inference_pb2 as pb
from crossbench.serving.exposition import exposition
from tests.helpers.dashboards import running_dashboard

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ATTACKS = (
    "<script>window.hacked=1</script>",
    "</script><script>window.hacked=1</script>",
    "</style></title></textarea><img src=x onerror='window.hacked=1'>",
    '"><svg onload=window.hacked=1>\'"',
    "`;window.hacked=1;`${window.hacked=1}",
    "{{constructor.constructor('window.hacked=1')()}}",
    "<style>body{display:none}</style><iframe srcdoc='<script>top.hacked=1</script>'>",
    "javascript:window.hacked=1",
    "&lt;b&gt; \u202e\u2028\x00\x07 \ud800",
    "-->]]>\\u003cscript\\u003e\n\r\t{b}{a}",
    "W" * 3000,
)
TEXT = " ".join(ATTACKS)


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
def test_no_text_of_an_event_is_run_or_breaks_the_page(
    tmp_path: Path, browser: Browser, width: int
) -> None:
    events = (
        SweepStarted(TEXT, cells=3),
        CellStarted(TEXT, {TEXT: TEXT, "model": TEXT, "load.task": TEXT}),
        StageStarted(TEXT),
        ServerConfigured({TEXT: TEXT, "model": TEXT}),
        FlagsChanged({TEXT: TEXT}),
        WindowMeasured(1, dict.fromkeys(ATTACKS, 1), 1.0, 1.0, 1.0, 1.0),
        CellEnded(TEXT, TEXT, False, {TEXT: 1.0}),
        RunEnded(TEXT, False),
    )
    for shown in (events[:6], events):
        folder = tmp_path / str(len(shown))
        folder.mkdir()
        with running_dashboard(folder, events=shown) as dashboard:
            page = browser.new_page(viewport={"width": width, "height": 800})
            errors: list[str] = []
            page.on("pageerror", lambda error, errors=errors: errors.append(str(error)))
            page.goto(dashboard.url)
            page.wait_for_selector(".chart svg path", state="attached")
            page.wait_for_timeout(2500)  # until the page has been updated once
            assert page.evaluate("window.hacked") is None
            assert errors == []
            foreign = "iframe, main img, main script, main style, svg[onload], [onerror]"
            assert page.locator(foreign).count() == 0
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.locator("h1").is_visible()
            text = page.locator("body").inner_text()
            for attack in ATTACKS[:8]:
                assert attack in text
            page.close()
            found = httpx.get(f"{dashboard.url}/metrics")
            assert ATTACKS[0] in json.dumps(found.json())
            assert httpx.get(f"{dashboard.url}/metrics/prometheus").status_code == 200
            log = dashboard.log.read_text("utf-8")
        assert log == ""


def test_a_text_that_is_not_unicode_is_escaped_on_reading() -> None:
    of_a_path = "caf\udce9"  # as Python reads a path in Latin-1
    read = decode(encode(CellStarted(of_a_path, {of_a_path: of_a_path}), 0.0, 0))
    assert read is not None
    assert read.event == CellStarted(r"caf\udce9", {r"caf\udce9": r"caf\udce9"})


def test_labels_of_prometheus_are_escaped() -> None:
    board = Board(None)
    board.apply(Recorded(ServerListens("127.0.0.1:1", {}), 0.0, None))
    hostile = 'a"} 1\ncrossbench_up{x="\\" 2\n# TYPE crossbench_up counter\n' + ATTACKS[0]
    board.connected(pb.ServerInfo(models=[pb.ModelInfo(name=hostile, backend=hostile)]))
    board.sample(pb.Metrics(requests_failed={hostile: 2}), (), 1.0)
    text, _ = exposition(BoardCollector(board), "")
    families = {
        family.name: family for family in text_string_to_metric_families(text.decode("utf-8"))
    }
    assert [sample.value for sample in families["crossbench_up"].samples] == [1.0]
    (facts,) = families["crossbench_server_info"].samples
    assert facts.labels["model"] == hostile
    failed = {
        sample.labels["status"]: sample.value for sample in families["crossbench_requests"].samples
    }
    assert failed[hostile] == 2
