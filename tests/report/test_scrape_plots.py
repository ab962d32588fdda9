"""The plot of a server's own metrics: which are shown, and that its texts do not collide."""

from __future__ import annotations

import itertools
import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from matplotlib.text import Text

from crossbench.measure.scraped import (
    SCRAPE_FILE,
    ScrapedValue,
    changed_series,
    parse,
    save_scraped,
)
from crossbench.report.cell import write_cell_report
from crossbench.report.scrape_plots import scrape_plots, scraped_figure
from crossbench.report.style import settle

STORED = Path(__file__).resolve().parents[1] / "data" / "sweep_of_schema_1" / "1"
TITLE = "The server's own metrics over time"
LONG = "http_request_duration_of_the_slowest_endpoint_highr_seconds"


def page(at_s: int, families: int) -> str:
    """Return a page with this many families, as a busy server of Python has them."""
    busy = 1 + math.sin(at_s)
    texts = [
        f"# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting {8 * busy:.0f}\n",
        f"# TYPE {LONG} histogram\n{LONG}_sum {0.2 * at_s * (at_s + 1)}\n{LONG}_count {4 * at_s}\n",
        f'# TYPE te_request_count counter\nte_request_count{{method="single"}} {9000 * at_s**2}\n',
        f"# TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes {7e8 + at_s}\n",
        f"# TYPE kv_cache_usage_perc gauge\nkv_cache_usage_perc {busy / 2}\n",
        f"# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total {1.9 * at_s}\n",
        f"# TYPE drift gauge\ndrift {-busy}\n",
        f"# TYPE large gauge\nlarge {1234567 * busy}\n",
    ]
    return "".join(texts[:families])


def samples(families: int, length_s: int = 20) -> list[ScrapedValue]:
    return [
        value for at_s in range(length_s + 1) for value in parse(page(at_s, families), float(at_s))
    ]


@pytest.mark.parametrize("families", [1, 2, 3, 5, 8])
def test_no_text_covers_another(families: int) -> None:
    with scraped_figure(changed_series(samples(families)), "tei batch=32 concurrency=1") as made:
        settle(made)
        made.draw_without_rendering()
        assert len(made.axes) == min(families, 6)
        texts: Sequence[Text] = [
            text for text in made.findobj(Text) if text.get_text() and text.get_visible()
        ]
        ticks = {
            label
            for axes in made.axes
            for axis in (axes.xaxis, axes.yaxis)
            for tick in axis.get_major_ticks()
            for label in (tick.label1, tick.label2)
            if not axis.get_view_interval()[0] <= tick.get_loc() <= axis.get_view_interval()[1]
        }
        boxes = {text: text.get_window_extent() for text in texts if text not in ticks}
        for (one, box), (other, other_box) in itertools.combinations(boxes.items(), 2):
            assert not box.overlaps(other_box), (one.get_text(), other.get_text())
        for text, box in boxes.items():
            assert made.bbox.x0 <= box.x0 < box.x1 <= made.bbox.x1, text.get_text()
            assert made.bbox.y0 <= box.y0 < box.y1 <= made.bbox.y1, text.get_text()


def test_the_plot_says_what_it_shows(tmp_path: Path) -> None:
    plots = scrape_plots(samples(8), tmp_path, "tei batch=32 concurrency=1")
    assert list(plots) == [TITLE]
    svg = plots[TITLE]().with_suffix(".svg").read_text("utf-8")
    for text in (
        TITLE,
        "tei batch=32 concurrency=1: 21 samples, added up over labels; 6 of 8 that changed",
        "vllm:num_requests_waiting",
        "time since the measurement began (s)",
        "per second",
        "mean (s)",
        "value",
    ):
        assert f"<!-- {text} -->" in svg
    # What every server of Python has comes last
    assert "process_" not in svg


def test_the_report_of_a_cell_has_the_plot(tmp_path: Path) -> None:
    cell = tmp_path / "cell"
    shutil.copytree(STORED, cell)
    save_scraped(samples(8), cell)
    report = write_cell_report(cell).read_text("utf-8")
    assert f"![{TITLE}](plots/scraped_over_time.png)" in report
    assert (cell / "plots" / "scraped_over_time.png").is_file()


@pytest.mark.slow
def test_samples_that_cannot_be_read_cost_only_their_plot(tmp_path: Path) -> None:
    cell = tmp_path / "cell"
    shutil.copytree(STORED, cell)
    (cell / SCRAPE_FILE).write_bytes(b"broken")
    report = write_cell_report(cell).read_text("utf-8")
    assert "> **Missing plot:** all: ResultError: scrape.parquet is broken" in report
    assert "![Distribution of latency](" in report


def test_nothing_to_show(tmp_path: Path) -> None:
    assert scrape_plots([], tmp_path, "cell") == {}
    assert scrape_plots(samples(8, length_s=1), tmp_path, "cell") == {}  # two samples
    assert scrape_plots(parse("idle 1\n", 0.0) + parse("idle 1\n", 1.0), tmp_path, "cell") == {}
