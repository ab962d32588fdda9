"""The catalogue: every metric once, in the order in which tables show them.

A metric is computed in one place and described here. Tables, plots, the dashboard, frames and
MLflow take its name, title, unit, digits and place from here, and `make metrics-doc` writes
docs/metrics.md from it. Imports nothing heavy.
"""

from __future__ import annotations

from dataclasses import replace

from crossbench.measure.metric import Better, Kind, Metric, View, distribution, with_interval

HIGHER, LOWER, NEITHER = Better.HIGHER, Better.LOWER, Better.NEITHER
NUMBER, COUNT, SHARE, CHANGE = Kind.NUMBER, Kind.COUNT, Kind.SHARE, Kind.CHANGE

PERCENTILES = (50, 75, 90, 95, 99)
_PLACES = {
    "tokenize": "the tokenizer",
    "queue": "the scheduler's queue",
    "infer": "the model",
    "overhead": "none of the other stages (network, serialisation, event loops)",
}
STAGES = tuple(_PLACES)
UNITS = ("pairs", "texts")  # what a request holds: `Task.unit`

# Views that several metrics share
_HEADLINE = (View.TERMINAL, View.SWEEP, View.DASHBOARD, View.COMPARISON, View.PREDECESSOR,
             View.FRAME, View.MLFLOW_FIRST, View.MLFLOW_NOTE)  # fmt: skip
_LATENCY_VIEWS = {
    "p50": _HEADLINE,
    "p75": (View.FRAME,),
    "p90": (View.FRAME,),
    "p95": (*_HEADLINE, View.MLFLOW_BEST),
    "p99": (View.TERMINAL, View.SWEEP, View.COMPARISON, View.FRAME, View.MLFLOW_FIRST),
}


def _rate(unit: str, about: str, *shown: View) -> Metric:
    return Metric(f"throughput/{unit}_per_s", "throughput", f"{unit}/s", HIGHER, about, shown)


def _best(metric: Metric) -> Metric:
    return replace(metric, name=f"best/{metric.key}", title=f"best {metric.title}", shown=(),
                   about=f"The best {metric.title} of the cells that finished.")  # fmt: skip


PAIRS_PER_S = _rate(
    "pairs", "Pairs scored per second while the load is complete, by Little's law: the mean number "
    "of requests in the model over their mean time in it, from the first to the last send.",
    *_HEADLINE, View.CELL_SUMMARY, View.MLFLOW_BEST,
)  # fmt: skip
TEXTS_PER_S = _rate(
    "texts", "The same where the cell embeds: texts instead of pairs.",
    View.CELL_SUMMARY, View.DASHBOARD, View.MLFLOW_NOTE,
)  # fmt: skip
TOKENS_PER_S = _rate(
    "tokens", "Real tokens (no padding) of the requests answered, by the same method.",
    View.CELL_SUMMARY,
)  # fmt: skip
RATES = (PAIRS_PER_S, TEXTS_PER_S)  # of which a cell has one
SPAN_RATES = tuple(
    Metric(f"throughput/span_{unit}_per_s", "throughput over the whole span", f"{unit}/s", HIGHER,
           f"{unit.capitalize()} over the time from the first send to the last reply, in which the "
           "load drains.", (View.CELL_SUMMARY,))
    for unit in UNITS
)  # fmt: skip
LATENCY = distribution(
    "latency", "latency", "counted from when the request was due", PERCENTILES, _LATENCY_VIEWS
)
P95_LATENCY = LATENCY["p95"]
SERVICE = distribution(
    "service", "service time", "counted from when the request was really sent", PERCENTILES
)
_STAGE_STATISTICS = {
    "p50": "The median time", "p95": "The 95th percentile of the time", "mean": "The mean time",
}  # fmt: skip
STAGE_STATISTICS = tuple(_STAGE_STATISTICS)
STAGE = {
    (stage, name): Metric(
        f"stage/{stage}_{name}_ms", f"{name} of {stage}", "ms", LOWER,
        f"{about} that a request spends in {place}.", short=name,
        shown=(View.CELL_STAGES, *([View.FRAME] * (name == "p50" and stage != "overhead"))),
    )
    for stage, place in _PLACES.items()
    for name, about in _STAGE_STATISTICS.items()
}  # fmt: skip

RSS_PEAK_MB = Metric(
    "memory/rss_peak_mb", "RSS peak", "MB", LOWER,
    "Largest resident set of the server's processes while it was measured.",
    (*_HEADLINE, View.CELL_MEMORY), in_every_cell=True,
)  # fmt: skip
DEVICE_PEAK_MB = Metric(
    "memory/device_peak_mb", "device peak", "MB", LOWER,
    "Largest memory on the GPU while it was measured; a CPU has none of its own.",
    (View.SWEEP, View.COMPARISON, View.FRAME, View.MLFLOW_FIRST, View.CELL_MEMORY),
)  # fmt: skip
MODEL_MB = Metric(
    "memory/model_mb", "weights", "MB", LOWER,
    "One copy of the model's weights, in the types that they are held in.",
    (View.SWEEP, View.MLFLOW_FIRST, View.MLFLOW_NOTE, View.CELL_MEMORY),
)  # fmt: skip
PADDING_WASTE = Metric(
    "batching/padding_waste", "padding waste", "%", LOWER,
    "Share of the computed token positions that hold padding.",
    (View.FRAME, View.CELL_WORK), kind=SHARE,
)  # fmt: skip
REQUESTS_OK = Metric(
    "requests/ok", "requests ok", "", HIGHER, "Requests that succeeded.",
    (View.CELL_SUMMARY, View.FRAME), kind=COUNT, in_every_cell=True,
)  # fmt: skip
REQUESTS_FAILED = Metric(
    "requests/failed", "requests failed", "", LOWER,
    "Requests that ended with an error; no other metric counts them.",
    (View.CELL_SUMMARY,), kind=COUNT, in_every_cell=True,
)  # fmt: skip

MAX_ABS_DIFF = Metric(
    "quality/max_abs_diff", "largest difference of a score", "", LOWER,
    "Largest difference of a score from the fp32 reference's, in the model's own unit.",
    (View.QUALITY,), short="max diff",
)  # fmt: skip
KENDALL_TAU = Metric(
    "quality/kendall_tau", "Kendall's tau, mean of the queries", "", HIGHER,
    "Kendall's tau-b of the order against the reference's, mean of the queries; 1: the same order.",
    (View.SWEEP, View.QUALITY), short="tau",
)  # fmt: skip
NDCG_AT_10 = Metric(
    "quality/ndcg_at_10", "nDCG@10", "", HIGHER,
    "nDCG of the first ten passages against the relevance judgements, mean of the queries.",
    (View.QUALITY, View.MLFLOW_FIRST),
)  # fmt: skip
MRR_AT_10 = Metric(
    "quality/mrr_at_10", "MRR@10", "", HIGHER,
    "Reciprocal rank of the first relevant passage of the first ten, mean of the queries.",
    (View.QUALITY,),
)  # fmt: skip
NDCG_AT_10_CHANGE = Metric(
    "quality/ndcg_at_10_change", "nDCG@10 vs fp32", "%", HIGHER,
    "Relative change of nDCG@10 from the fp32 reference's on the same queries.",
    (View.SWEEP, View.QUALITY), kind=CHANGE,
)  # fmt: skip
JUDGED_QUERIES = Metric(
    "quality/judged_queries", "judged queries", "", NEITHER,
    "Checked queries for which a relevant passage is known.", kind=COUNT,
)  # fmt: skip
QUERIES = Metric(
    "quality/queries", "queries", "", NEITHER, "Queries whose ranking was checked.",
    (View.QUALITY,), kind=COUNT,
)  # fmt: skip
QUALITY_PAIRS = Metric(
    "quality/pairs", "checked pairs", "", NEITHER, "Pairs whose scores were checked.", kind=COUNT
)

CORRELATION = {
    name: Metric(f"correlation/{name}", f"correlation of {of}", "", NEITHER, about, short=of)
    for name, of, about in (
        ("request", "request throughput and latency",
         "Pearson's r of a request's pairs / latency and its latency, request by request."),
        ("window", "window throughput and median latency",
         "Pearson's r of throughput and median latency, window by window."),
        ("tokens", "tokens of a request and latency",
         "Pearson's r of a request's real tokens and its latency, request by request."),
    )
}  # fmt: skip

METRICS: tuple[Metric, ...] = (
    PAIRS_PER_S,
    TEXTS_PER_S,
    _rate("requests", "Requests answered, by the same method.", View.CELL_SUMMARY),
    TOKENS_PER_S,
    *SPAN_RATES,
    *LATENCY.values(),
    *SERVICE.values(),
    *STAGE.values(),
    Metric("memory/rss_before_load_mb", "RSS before load", "MB", NEITHER,
           "Resident set of the server's process before it loads the model.", (View.CELL_MEMORY,)),
    Metric("memory/rss_after_load_mb", "RSS after load", "MB", LOWER,
           "Resident set of the server's processes with the model loaded.", (View.CELL_MEMORY,)),
    RSS_PEAK_MB,
    DEVICE_PEAK_MB,
    MODEL_MB,
    Metric("batching/batches", "micro-batches", "", NEITHER,
           "Calls of the model while it was measured.", kind=COUNT),
    *(Metric(f"batching/{unit}_per_batch", f"{unit} per micro-batch", "", NEITHER,
             f"Mean number of {unit} that the model runs in one call.", (View.CELL_WORK,))
      for unit in UNITS),
    PADDING_WASTE,
    Metric("cpu/cores_used", "cores kept busy by the server's process", "", NEITHER,
           "CPU seconds of the server's processes per second of the measurement.",
           (View.CELL_WORK,)),
    Metric("harness/cores_used", "cores kept busy by the client's process (if not the same)", "",
           NEITHER,
           "CPU seconds of the client's process per second of the measurement; with "
           "target=inprocess it is the server's too.", (View.CELL_WORK,)),
    Metric("compile/recompilations", "graphs compiled while measured", "", LOWER,
           "Graphs that torch.compile compiled during the measurement: more than 0 distorts it.",
           kind=COUNT),
    REQUESTS_OK,
    REQUESTS_FAILED,
    *(Metric(f"requests/truncated_{unit}", f"{unit} that were truncated", "", NEITHER,
             f"{unit.capitalize()} longer than the model takes, which were cut.",
             (View.CELL_WORK,), kind=COUNT)
      for unit in UNITS),
    Metric("startup/load_s", "load the model", "s", LOWER,
           "Time to load the model, on all workers.", (View.CELL_STARTUP,)),
    Metric("startup/compile_s", "compile", "s", LOWER,
           "Time that the backend takes to compile before the first request.",
           (View.CELL_STARTUP,)),
    Metric("startup/warmup_s", "warm up", "s", NEITHER,
           "Time of the warm-up requests, which are not measured.", (View.CELL_STARTUP,)),
    MAX_ABS_DIFF,
    Metric("quality/mean_abs_diff", "mean difference of a score", "", LOWER,
           "Mean difference of the scores from the fp32 reference's.", (View.QUALITY,),
           short="mean diff"),
    KENDALL_TAU,
    Metric("quality/top10_overlap", "share of the top ten in common", "", HIGHER,
           "Share of the reference's first ten passages that are among the cell's first ten, mean "
           "of the queries with more than ten.", (View.QUALITY,), short="top 10 in common"),
    *with_interval(NDCG_AT_10),
    *with_interval(MRR_AT_10),
    *with_interval(NDCG_AT_10_CHANGE),
    JUDGED_QUERIES,
    QUERIES,
    QUALITY_PAIRS,
    *(metric
      for r in CORRELATION.values()
      for metric in (*with_interval(r),
                     Metric(f"{r.name}_n", f"{r.title}, n", "", NEITHER,
                            "Number of observations.", kind=COUNT))),
)  # fmt: skip

QUALITY_FAMILY = NDCG_AT_10.family

# Of a sweep's own run in MLflow
BEST = {metric.name: _best(metric) for metric in METRICS if View.MLFLOW_BEST in metric.shown}
CELLS = {
    status: Metric(f"cells/{status}", f"cells {status}", "", NEITHER,
                   f"Number of cells with the status {status}.", kind=COUNT)
    for status in ("finished", "failed", "unavailable", "unsupported")
}  # fmt: skip
# Of a cell's run in MLflow over time: a value a window, step = seconds since the start
LIVE = {
    metric.key: replace(metric, name=f"live/{metric.key}", shown=(), in_every_cell=False,
                        about=f"Each window's {metric.title}.")
    for metric in (PAIRS_PER_S, TEXTS_PER_S, LATENCY["p50"], LATENCY["p95"])
} | {
    "requests": Metric("live/requests", "requests", "", NEITHER, "Replies in each window.",
                       kind=COUNT)
}  # fmt: skip

ALL: tuple[Metric, ...] = (*METRICS, *BEST.values(), *CELLS.values(), *LIVE.values())
BY_NAME = {metric.name: metric for metric in ALL}


def throughput(unit: str) -> Metric:
    """Throughput in `unit` (`Task.unit`: pairs or texts) a second."""
    return RATES[UNITS.index(unit)]


def latency(q: int) -> Metric:
    """Latency's percentile `q`, one of PERCENTILES."""
    return LATENCY[f"p{q}"]


def stage(name: str, statistic: str) -> Metric:
    """Time in a stage (one of STAGES): its `p50`, `p95` or `mean`."""
    return STAGE[name, statistic]


def shown(view: View) -> tuple[Metric, ...]:
    """The metrics of a view in their order."""
    return tuple(metric for metric in METRICS if view in metric.shown)


def names(view: View) -> tuple[str, ...]:
    """The names of a view's metrics in their order."""
    return tuple(metric.name for metric in shown(view))


def family(name: str) -> str:
    """The part of a metric's name before the slash, whether or not the metric is known."""
    return name.partition("/")[0]


def key(name: str) -> str:
    """The part of a metric's name behind the slash, whether or not the metric is known."""
    return name.partition("/")[2]


def live_name(series: str) -> str:
    """The name in MLflow of a series of result.json."""
    return f"live/{series}"


def is_live(name: str) -> bool:
    """Whether a metric in MLflow is a series over time."""
    return name.startswith(live_name(""))
