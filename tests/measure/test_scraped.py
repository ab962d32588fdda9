"""A server's own Prometheus metrics become `scrape/…`."""

from __future__ import annotations

import pytest

from crossbench.measure.scraped import MOST_METRICS, ScrapedValue, parse, scraped_metrics

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


def test_the_number_of_metrics_is_limited() -> None:
    page = "".join(f"gauge_{number} 1\n" for number in range(1000))
    assert len(scraped_metrics(parse(page, 0.0))) == MOST_METRICS


def test_another_page_is_no_prometheus_text() -> None:
    with pytest.raises(ValueError, match=r"."):
        parse("<html><body>Not found</body></html>", 0.0)
