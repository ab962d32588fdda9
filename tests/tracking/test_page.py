"""MLflow's own page in a real browser: the cells of an experiment with their numbers."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from crossbench.dashboard.screenshot import BROWSER_ARGS, find_browser
from crossbench.results import save_result
from crossbench.tracking.mlflow_store import MlflowTracker
from crossbench.tracking.protocol import CellRef
from tests.helpers.bad_servers import free_port
from tests.helpers.measured import measured
from tests.helpers.mlflow_server import mlflow_server


@pytest.mark.slow
def test_the_page_lists_the_cells_with_their_numbers(migrated_store: Path, tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    browser_path = find_browser()
    if browser_path is None:
        pytest.skip("no Chromium")
    shutil.copy(migrated_store, tmp_path / "mlflow.db")
    port = free_port()
    server = f"http://127.0.0.1:{port}"
    with mlflow_server(tmp_path, port), playwright.sync_playwright() as driver:
        tracker = MlflowTracker("mlflow", server, "crossbench", None, None, 20)
        parent = tracker.start_sweep("sweep", "sizes of requests", ["batch=8,16"])
        for number, rate in enumerate((1234.5, 2345.5)):
            result = replace(measured(rate, config={"batch": 8 * (number + 1)}), dataset={})
            folder = tmp_path / str(number)
            folder.mkdir()
            save_result(result, folder)
            run_id = tracker.start_cell(f"batch={8 * (number + 1)}", parent, CellRef("s", number))
            assert run_id is not None
            tracker.finish_cell(run_id, result, folder, axes=["batch"])
        browser = driver.chromium.launch(executable_path=browser_path, args=list(BROWSER_ARGS))
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.route(lambda url: not url.startswith(server), lambda route: route.abort())
        page.goto(f"{server}/#/experiments/1")  # where people come from MLflow's list
        link = page.locator("a", has_text="All cells with their numbers").first
        page.goto(f"{server}/{link.get_attribute('href', timeout=60_000)}")
        for text in ("throughput/pairs_per_s", "1234.5", "2345.5", "batch=16"):
            page.get_by_text(text, exact=True).first.wait_for(timeout=60_000)
        assert page.get_by_text("sizes of requests").count() == 0  # parent runs would hide cells
        browser.close()
