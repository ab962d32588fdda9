"""Computes metrics from request records: throughput, latency, stage times, windows.

Percentiles are over successful requests, with Hyndman and Fan's type 7 (linear between the order
statistics, numpy's default). Throughput is the server's while the load is complete (`steady_rate`);
the plain throughput, over the span from the first send to the last reply, is another metric.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossbench.measure.catalogue import PERCENTILES
from crossbench.measure.stalls import stalls_s
from crossbench.types import RequestRecord, Task

WINDOW_S = 1.0
WINDOW_LATENCIES = 5  # a window is at least this many median latencies long
SUPPORT = 5  # observations that must lie beyond a percentile


@dataclass(frozen=True, slots=True)
class Windows:
    """Throughput and latency over time, one value per window.

    A request's pairs are spread evenly over its time in the model, and each window gets the share
    that falls into it. (Counting completions would be too coarse: of five requests in a window, one
    more or less is 20 %. Including the time in the queue would count work before it is done.)
    `p50_ms` and `p95_ms` are percentiles weighted by these shares, None if the model computed no
    successful request. `requests` is the number of replies. `time_s` are the windows' ends in
    seconds since the start of the measurement. A remainder of at least half a window is a separate
    window, a shorter one extends the last window. Rates use the actual length.
    """

    length_s: float
    time_s: tuple[float, ...] = ()
    pairs_per_s: tuple[float, ...] = ()
    requests: tuple[int, ...] = ()
    p50_ms: tuple[float | None, ...] = ()
    p95_ms: tuple[float | None, ...] = ()

    def __len__(self) -> int:
        return len(self.time_s)

    def series(self, task: Task = Task.SCORE) -> dict[str, list[float]]:
        """Return the columns for RunResult.series, without windows that have no latency."""
        rows = [
            (time_s, rate, float(requests), p50, p95)
            for time_s, rate, requests, p50, p95 in zip(
                self.time_s, self.pairs_per_s, self.requests, self.p50_ms, self.p95_ms, strict=True
            )
            if p50 is not None and p95 is not None
        ]
        names = ("time_s", f"{task.unit}_per_s", "requests", "p50_ms", "p95_ms")
        return {name: [row[column] for row in rows] for column, name in enumerate(names)}


@dataclass(frozen=True, slots=True)
class LatencyRange:
    """Throughput per request, in pairs/s, of the requests in one range of latencies."""

    label: str
    requests: int
    mean_pairs_per_s: float | None
    min_pairs_per_s: float | None
    max_pairs_per_s: float | None


def summarise(records: Sequence[RequestRecord], task: Task = Task.SCORE) -> dict[str, float]:
    """Return the metrics of the records, without undefined ones (such as std of one request).

    Latency starts when a request was due, service time when it was sent. A request's `overhead` is
    its service time minus the three stages: network, serialisation, event loops.
    """
    good = [record for record in records if record.ok]
    metrics = {
        "requests/ok": float(len(good)),
        "requests/failed": float(len(records) - len(good)),
    }
    truncated = [record.truncated for record in good if record.truncated is not None]
    if len(truncated) == len(good):
        metrics[f"requests/truncated_{task.unit}"] = float(sum(truncated))
    if not good:
        return metrics
    if (rate := steady_rate(records)) is not None:
        metrics[f"throughput/{task.unit}_per_s"] = rate * sum(r.pairs for r in good) / len(good)
        metrics["throughput/requests_per_s"] = rate
        tokens = [record.tokens for record in good if record.tokens is not None]
        if len(tokens) == len(good):
            metrics["throughput/tokens_per_s"] = rate * sum(tokens) / len(good)
    span_s = max(r.received_s for r in records) - min(r.sent_s for r in records)
    if span_s > 0:
        metrics[f"throughput/span_{task.unit}_per_s"] = sum(r.pairs for r in good) / span_s
    lag_ms = _values(records, lambda r: (r.sent_s - r.due_s) * 1e3)
    metrics["harness/schedule_lag_p99_ms"] = percentile(lag_ms, 99)
    metrics["requests/stalls"] = float(len(stalls_s(records)))
    metrics |= _distribution("latency", _values(good, lambda r: r.latency_ms))
    metrics |= _distribution("service", _values(good, lambda r: r.service_ms))
    for name, values in stage_ms(good).items():
        metrics[f"stage/{name}_p50_ms"] = percentile(values, 50)
        metrics[f"stage/{name}_p95_ms"] = percentile(values, 95)
        metrics[f"stage/{name}_mean_ms"] = float(values.mean())
    return metrics


def steady_rate(records: Sequence[RequestRecord]) -> float | None:
    """Return the requests/s of the server while the load is complete, or None.

    It is None without a successful request or a time span.

    By Little's law, rate = mean number of requests in the model / mean time in the model. The first
    mean is over the time from the first to the last send; the second is over all successful
    requests. Requests divided by the span to the last reply would include the time after the last
    send, when some of the server's workers have no work. A ratio of two means is too high by about
    the squared coefficient of variation divided by the number of requests (Cochran, Sampling
    Techniques, 3rd ed., section 6.8), which is subtracted.

    If fewer than half of the requests were answered by the last send, as with load=offline, the
    rate is the one over the whole span.
    """
    good = [record for record in records if record.ok]
    if not good:
        return None
    start_s, last_send_s = min(r.sent_s for r in records), max(r.sent_s for r in records)
    span_s = max(r.received_s for r in records) - start_s
    if span_s <= 0:
        return None
    begin_s, end_s = _model_times(good)
    answered, window_s = int((end_s <= last_send_s).sum()), last_send_s - start_s
    if answered < len(good) / 2:
        return len(good) / span_s
    times_s = end_s - begin_s
    mean_s = float(times_s.mean())
    if mean_s == 0:
        return answered / window_s
    in_model = float((np.minimum(end_s, last_send_s) - begin_s).clip(0).sum()) / window_s
    return in_model / mean_s * (1 - float(times_s.var()) / mean_s**2 / len(good))


def _model_times(
    records: Sequence[RequestRecord],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return when the model began and ended each request, in seconds, each of shape (n,).

    This ignores the time that a reply takes to the client, which is short. If the server does not
    tell its stages, the model begins when a request is sent.
    """
    end_s = _values(records, lambda r: r.received_s)
    sent_s = _values(records, lambda r: r.sent_s)
    # fmax ignores NaN
    return np.fmax(end_s - _values(records, lambda r: r.infer_ms) / 1e3, sent_s), end_s


def percentile(values: Sequence[float] | NDArray[np.float64], q: float) -> float:
    """Return the percentile `q` (0..100) of at least one value (Hyndman and Fan's type 7)."""
    return float(np.percentile(values, q, method="linear"))


def percentile_support(q: float) -> int:
    """Return how many observations there must be for five of them to lie beyond a percentile.

    The p50 needs 10 requests, p90 50, p95 100 and p99 500. With fewer requests, a few outliers
    determine the percentile.
    """
    return math.ceil(SUPPORT * 100 / min(q, 100 - q))


def percentile_supported(q: float, n: int) -> bool:
    """Return whether at least five of `n` observations lie beyond the percentile `q`."""
    return n >= percentile_support(q)


def stage_ms(records: Sequence[RequestRecord]) -> dict[str, NDArray[np.float64]]:
    """Return the time of each stage per request in ms, each of shape (len(records),).

    Empty if the server does not tell the stages of a request.
    """
    if not all(record.has_stages for record in records):
        return {}
    stages = {
        "tokenize": _values(records, lambda r: r.tokenize_ms),
        "queue": _values(records, lambda r: r.queue_ms),
        "infer": _values(records, lambda r: r.infer_ms),
    }
    service = _values(records, lambda r: r.service_ms)
    return {**stages, "overhead": service - sum(stages.values(), np.zeros(len(records)))}


def request_throughput(records: Sequence[RequestRecord]) -> NDArray[np.float64]:
    """Return each request's pairs / latency in pairs/s, of shape (len(records),)."""
    return _values(records, lambda r: r.pairs / max(r.latency_ms, 1e-6) * 1e3)


def latency_range_table(records: Sequence[RequestRecord]) -> list[LatencyRange]:
    """Return the throughput per request by range of latency: < P50, P50-P75, P75-P90, >= P90.

    A range without requests (because of ties or few requests) has a count of 0 and no values.
    """
    good = [record for record in records if record.ok]
    if not good:
        return []
    latency, rate = _values(good, lambda r: r.latency_ms), request_throughput(good)
    edges = [-np.inf, *(percentile(latency, q) for q in (50, 75, 90)), np.inf]
    rows = []
    for label, low, high in zip(
        ("< P50", "P50-P75", "P75-P90", ">= P90"), edges[:-1], edges[1:], strict=True
    ):
        inside = rate[(latency >= low) & (latency < high)]
        if inside.size:
            mean, least, most = float(inside.mean()), float(inside.min()), float(inside.max())
            rows.append(LatencyRange(label, int(inside.size), mean, least, most))
        else:
            rows.append(LatencyRange(label, 0, None, None, None))
    return rows


def windows(records: Sequence[RequestRecord]) -> Windows:
    """Split the measurement into windows of one second, or of five median latencies if longer."""
    good = [record for record in records if record.ok]
    if not good:
        return Windows(WINDOW_S)
    latency = _values(good, lambda r: r.latency_ms)
    length_s = max(WINDOW_S, WINDOW_LATENCIES * percentile(latency, 50) / 1e3)
    start_s = min(r.sent_s for r in records)
    span_s = max(r.received_s for r in records) - start_s
    # Round half up, unlike round(), so that half a window counts as a window
    count = max(1, int(span_s / length_s + 0.5))
    ends = length_s * np.arange(1, count + 1, dtype=np.float64)
    ends[-1] = span_s
    if span_s <= 0:
        return Windows(length_s)

    begin, received = _model_times(good)
    request, window, share = _shares(begin - start_s, received - start_s, ends)
    pairs = np.bincount(window, share * _values(good, lambda r: r.pairs)[request], count)
    replies = np.bincount(np.minimum(np.searchsorted(ends, received - start_s), count - 1))
    quantiles: list[tuple[float | None, float | None]] = [(None, None)] * count
    order = np.lexsort((latency[request], window))
    bounds = np.searchsorted(window[order], np.arange(count + 1))
    for k in range(count):
        rows = order[bounds[k] : bounds[k + 1]]
        if rows.size:
            weights, values = np.cumsum(share[rows]), latency[request[rows]]
            quantiles[k] = (_weighted(values, weights, 0.5), _weighted(values, weights, 0.95))
    return Windows(
        length_s,
        time_s=tuple((ends + start_s).tolist()),
        pairs_per_s=tuple((pairs / np.diff(ends, prepend=0.0)).tolist()),
        requests=tuple(np.pad(replies, (0, count - len(replies))).tolist()),
        p50_ms=tuple(p50 for p50, _ in quantiles),
        p95_ms=tuple(p95 for _, p95 in quantiles),
    )


def _shares(
    begin: NDArray[np.float64], end: NDArray[np.float64], ends: NDArray[np.float64]
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """Return (request, window, share of the request's service time in it) for all overlaps."""
    last = len(ends) - 1
    first_window = np.minimum(np.searchsorted(ends, begin, side="right"), last)
    last_window = np.maximum(np.minimum(np.searchsorted(ends, end), last), first_window)
    touched = last_window - first_window + 1
    request = np.repeat(np.arange(len(begin)), touched)
    offset = np.arange(len(request)) - np.repeat(np.cumsum(touched) - touched, touched)
    window = first_window[request] + offset
    starts = np.concatenate(([0.0], ends[:-1]))
    overlap = np.minimum(end[request], ends[window]) - np.maximum(begin[request], starts[window])
    duration = (end - begin)[request]
    # A request with a duration of zero belongs entirely to one window
    share = np.where(duration > 0, overlap / np.where(duration > 0, duration, 1.0), 1.0)
    return request, window, share


def _weighted(values: NDArray[np.float64], cumulative: NDArray[np.float64], q: float) -> float:
    """Return the weighted percentile: the smallest sorted value that reaches the share `q`."""
    return float(values[np.searchsorted(cumulative, q * cumulative[-1] * (1 - 1e-12))])


def _values(
    records: Sequence[RequestRecord], get: Callable[[RequestRecord], float]
) -> NDArray[np.float64]:
    return np.fromiter((get(record) for record in records), dtype=np.float64, count=len(records))


def _distribution(name: str, values: NDArray[np.float64]) -> dict[str, float]:
    metrics = {f"{name}/p{q}_ms": percentile(values, q) for q in PERCENTILES}
    metrics |= {
        f"{name}/mean_ms": float(values.mean()),
        f"{name}/min_ms": float(values.min()),
        f"{name}/max_ms": float(values.max()),
    }
    if len(values) > 1:
        metrics[f"{name}/std_ms"] = float(values.std(ddof=1))
    return metrics
