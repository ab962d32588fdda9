"""A server's own Prometheus metrics become `scrape/…`, and series over time."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from crossbench.measure.scraped import (
    MOST_METRICS,
    ScrapedSeries,
    ScrapedValue,
    Summed,
    changed_series,
    load_scraped,
    parse,
    save_scraped,
    scraped_metrics,
)

PAGE = """\
# HELP te_queue_size Current size of the queue
# TYPE te_queue_size gauge
te_queue_size {queue}
# TYPE te_request_count counter
te_request_count{{method="batch"}} {count}
te_request_count{{method="single"}} 2
# TYPE te_batch_next_size histogram
te_batch_next_size_bucket{{le="1"}} 0
te_batch_next_size_bucket{{le="+Inf"}} {count}
te_batch_next_size_sum {sum}
te_batch_next_size_count {count}
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{{model="a"}} 3
vllm:num_requests_running{{model="b"}} {queue}
untyped_hits_total {count}
# TYPE build_info gauge
build_info{{version="1"}} 1
# TYPE te_request_created gauge
te_request_created 1.795e9
"""


def pages(*values: tuple[float, int, int, int]) -> list[ScrapedValue]:
    """Return the values of pages at these times, with a queue, a count and a sum each."""
    return [
        value
        for time_s, queue, count, total in values
        for value in parse(PAGE.format(queue=queue, count=count, sum=total), time_s)
    ]


def test_counters_gauges_and_histograms() -> None:
    found = scraped_metrics(pages((0.0, 0, 10, 80), (1.0, 6, 12, 90), (2.0, 3, 30, 480)))
    assert found == pytest.approx({
        "scrape/te_queue_size_mean": 3.0,
        "scrape/te_queue_size_max": 6.0,
        "scrape/te_request_count_per_s": 10.0,  # of both methods
        "scrape/te_batch_next_size_mean": 20.0,  # 400 in 20 batches, not those before
        "scrape/vllm_num_requests_running_mean": 6.0,
        "scrape/vllm_num_requests_running_max": 9.0,
        "scrape/untyped_hits_per_s": 10.0,
    })  # fmt: skip


def test_what_is_not_known_is_left_out() -> None:
    once = scraped_metrics(pages((0.0, 1, 5, 5)))
    assert not [name for name in once if name.endswith("_per_s")]
    assert "scrape/te_batch_next_size_mean" not in once
    again = scraped_metrics(pages((0.0, 1, 50, 5), (1.0, 1, 5, 5)))  # the server has begun again
    assert "scrape/te_request_count_per_s" not in again
    assert scraped_metrics([]) == {}
    assert scraped_metrics(parse("gauge NaN\n", 0.0)) == {}


def test_families_over_time() -> None:
    samples = pages((0.0, 0, 10, 80), (2.0, 6, 12, 90), (3.0, 6, 12, 90), (4.0, 3, 32, 490))
    found = {series.family: series for series in changed_series(samples)}
    assert list(found) == [
        "te_queue_size", "te_request_count", "te_batch_next_size", "vllm:num_requests_running",
        "untyped_hits_total",
    ]  # fmt: skip
    queue, count, size = list(found.values())[:3]
    assert queue == ScrapedSeries("te_queue_size", Summed.GAUGE, [0, 2, 3, 4], [0, 6, 6, 3])
    assert count == ScrapedSeries("te_request_count", Summed.COUNTER, [0, 2, 3, 4], [1, 0, 20])
    assert (size.summed, size.times_s) == (Summed.OBSERVED, [0, 2, 3, 4])
    assert size.values == pytest.approx([5, math.nan, 20], nan_ok=True)  # none in the second


def test_what_stands_still_has_no_course() -> None:
    assert changed_series(pages((0.0, 3, 10, 80), (1.0, 3, 10, 80))) == []
    assert changed_series(pages((0.0, 3, 10, 80))) == []
    (count,) = (
        series
        for series in changed_series(pages((0.0, 1, 9, 9), (1.0, 1, 2, 2), (2.0, 1, 5, 5)))
        if series.family == "te_request_count"
    )
    assert count.values == pytest.approx([math.nan, 3], nan_ok=True)  # the server has begun again


def test_a_rate_over_milliseconds_is_left_out() -> None:
    samples = pages((0.0, 1, 0, 0), (1.0, 1, 10, 10), (2.0, 1, 20, 20), (2.001, 2, 21, 21))
    (count,) = (one for one in changed_series(samples) if one.family == "te_request_count")
    assert count.times_s == [0, 1, 2.001]
    assert count.values == pytest.approx([10, 11], rel=0.01)


def test_the_file_has_all_values(tmp_path: Path) -> None:
    assert load_scraped(tmp_path) == []
    values = pages((0.0, 3, 10, 80), (1.0, 4, 10, 80))
    save_scraped(values, tmp_path)
    assert load_scraped(tmp_path) == values


def test_the_number_of_metrics_is_limited() -> None:
    page = "".join(f"gauge_{number} 1\n" for number in range(1000))
    assert len(scraped_metrics(parse(page, 0.0))) == MOST_METRICS


def test_another_page_is_no_prometheus_text() -> None:
    with pytest.raises(ValueError, match=r"."):
        parse("<html><body>Not found</body></html>", 0.0)
