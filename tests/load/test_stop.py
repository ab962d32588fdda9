"""When a cell ends, and when its warm-up does, on simulated servers."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from benchmarks.queues import closed_queue
from crossbench.errors import ConfigError
from crossbench.load.stop import End, Fixed, Limits, Precision, Watch
from crossbench.load.warmup import WarmUp
from crossbench.measure.rate_windows import RateWindows
from crossbench.settings.component import Component
from crossbench.types import RequestRecord
from tests.helpers.records import record


def precision(limits: Limits, **changes: object) -> Precision:
    """Return the choice of conf/stop/precision.yaml with some values changed."""
    rule: Precision = Component.choice("stop", "precision").replace(**changes).build(limits=limits)
    return rule


def ended(watch: Watch, records: Sequence[RequestRecord]) -> tuple[End, int, float]:
    """Return why, after how many requests and when a user of one request in flight stops."""
    for index, reply in enumerate(records):
        if index and (end := watch.end(index, reply.sent_s)):
            return end, index, reply.sent_s
        watch.note(reply)
    pytest.fail("the requests did not suffice")


def one_at_a_time(draw_s: Callable[[], float], requests: int = 5000) -> list[RequestRecord]:
    return closed_queue(requests, 1, 1, draw_s, pairs=8)


def noisy(mean_s: float, sd: float) -> list[RequestRecord]:
    """Return the requests of a server with independent service times; `sd` relative to the mean."""
    rng = np.random.default_rng(1)
    return one_at_a_time(lambda: mean_s * max(0.1, 1 + sd * rng.standard_normal()))


def test_only_the_limits_end_a_fixed_cell() -> None:
    records = noisy(0.1, 0.0)
    assert ended(Fixed("fixed", Limits(30, 600.0)).watch(scheduled=False), records)[:2] == (
        End.REQUESTS, 30,
    )  # fmt: skip
    end, _, seconds = ended(Fixed("fixed", Limits(None, 15.0)).watch(scheduled=False), records)
    assert (end, seconds) == (End.MAX_SECONDS, pytest.approx(15.0, abs=0.11))


def test_a_steady_server_ends_its_cell_early_and_a_noisy_one_does_not() -> None:
    limits = Limits(None, 60.0)
    end, _, steady_s = ended(precision(limits).watch(scheduled=False), noisy(0.02, 0.1))
    assert end is End.PRECISION
    assert 5 <= steady_s < 10
    end, _, noisy_s = ended(precision(limits).watch(scheduled=False), noisy(0.5, 0.8))
    assert (end, noisy_s) == (End.MAX_SECONDS, pytest.approx(60, abs=1))


def test_requests_limit_a_cell_that_is_not_precise_yet() -> None:
    watch = precision(Limits(7, 60.0)).watch(scheduled=False)
    assert ended(watch, noisy(0.1, 0.1))[:2] == (End.REQUESTS, 7)


def test_a_slow_cell_goes_on_until_it_has_its_requests() -> None:
    watch = precision(Limits(None, 15.0)).watch(scheduled=False)
    assert ended(watch, noisy(1.0, 0.1))[:2] == (End.MIN_REQUESTS, 30)
    watch = precision(Limits(None, 15.0)).watch(scheduled=False)
    end, requests, _ = ended(watch, noisy(7.0, 0.1))
    assert end is End.MAX_SECONDS_HARD
    assert requests < 10
    longer = precision(Limits(None, 100.0))
    assert longer.longest_s == 100  # max_seconds_hard never shortens a cell


def test_a_p95_that_was_asked_for_prolongs_a_cell() -> None:
    records = noisy(0.02, 0.1)
    rule = precision(Limits(None, 600.0), p95_precision=0.02)
    end, _, seconds = ended(rule.watch(scheduled=False), records)
    assert end is End.PRECISION
    without = ended(precision(Limits(None, 600.0)).watch(scheduled=False), records)
    assert seconds > without[2]


def test_a_load_with_a_schedule_does_not_end_by_its_throughput() -> None:
    """Its throughput is the schedule's, however little is known about the latency."""
    watch = precision(Limits(None, 15.0)).watch(scheduled=True)
    assert ended(watch, noisy(0.02, 0.1))[0] is End.MAX_SECONDS


@pytest.mark.parametrize(
    ("key", "value"),
    [("precision", 0), ("precision", 3), ("p95_precision", -0.1), ("max_seconds_hard", -1)],
)
def test_values_of_a_stop_rule_that_cannot_be_used(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"stop\.{key} must be .* got {value}"):
        precision(Limits(None, 15.0), **{key: value})


def test_rates_of_windows_are_those_of_the_server() -> None:
    """Four users of a server with four workers, each of which takes 0.1 s for 8 pairs."""
    windows = RateWindows(closed_queue(400, 4, 4, lambda: 0.1, pairs=8))
    rates = windows.rates()
    assert len(rates) == pytest.approx(10 / 0.2, abs=2)
    assert rates == pytest.approx(320, rel=1e-6)
    assert windows.longest_recent_s() == pytest.approx(0.1)
    assert len(RateWindows().rates()) == 0
    assert len(RateWindows([record(0.0, 3.0, status="UNAVAILABLE")]).rates()) == 0


def warmed(draw_s: Callable[[], float], **changes: float) -> tuple[WarmUp, End, int, float]:
    warmup = WarmUp(requests=10, max_seconds=10.0)
    return warmup, *ended(warmup, one_at_a_time(draw_s))


def test_a_warm_up_lasts_until_the_server_is_steady() -> None:
    rng = np.random.default_rng(2)
    warmup, end, _, steady_s = warmed(lambda: 0.02 * rng.uniform(0.8, 1.2))
    assert (end, warmup.warning()) == (End.PRECISION, "")
    assert 1 <= steady_s < 2
    count = iter(range(10_000))
    # The first requests take up to three times as long; the excess falls by half every 40 requests
    warmup, end, _, cold_s = warmed(
        lambda: 0.02 * rng.uniform(0.8, 1.2) * (1 + 2 * 0.5 ** (next(count) / 40))
    )
    assert (end, warmup.warning()) == (End.PRECISION, "")
    assert cold_s > 2 * steady_s


@pytest.mark.parametrize(("service_s", "users"), [(0.12, 4), (0.02, 32)])
def test_replies_after_the_end_of_a_warm_up_do_not_change_its_verdict(
    service_s: float, users: int
) -> None:
    """Requests that are in flight at its end still arrive; on their own they may show a trend."""
    draw = np.random.default_rng(4).uniform
    for _ in range(20):
        records = closed_queue(4000, users, 1, lambda: service_s * draw(0.9, 1.1))
        warmup = WarmUp(requests=users, max_seconds=60.0)
        end = None
        for n, sent in enumerate(records):
            end = end or (warmup.end(n, sent.sent_s) if n else None)
            if end and sent.sent_s > records[n - 1].received_s:
                break
            warmup.note(sent)
        assert (end, warmup.warning()) == (End.PRECISION, "")


def test_a_warm_up_that_never_becomes_steady_says_so() -> None:
    count = iter(range(10_000))
    warmup, end, *_ = warmed(lambda: 0.01 * 1.002 ** next(count))
    assert end is End.MAX_SECONDS
    assert "never became steady in the warm-up of 10" in warmup.warning()


def test_a_slow_server_has_too_few_requests_to_test() -> None:
    warmup, end, requests, _ = warmed(lambda: 3.0)
    assert (end, requests) == (End.MAX_SECONDS, 4)
    assert "The warm-up had 4 requests in 12.0 s, too few" in warmup.warning()
    assert "warmup_max_seconds=33" in warmup.warning()


def test_failing_requests_do_not_prolong_a_warm_up() -> None:
    warmup = WarmUp(requests=10, max_seconds=10.0)
    failing = [record(k / 100, (k + 1) / 100, status="INTERNAL") for k in range(50)]
    assert ended(warmup, failing)[:2] == (End.PRECISION, 10)
    assert warmup.warning() == ""
