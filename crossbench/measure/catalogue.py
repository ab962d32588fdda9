"""The catalogue of all metrics, in the order in which tables show them.

A metric is computed in one place and described here. Tables, plots, the dashboard, data frames and
MLflow take its name, title, unit, digits and position from here, and `make metrics-doc` generates
docs/metrics.md from it. This module imports nothing heavy.
"""

from __future__ import annotations

from dataclasses import replace

from crossbench.measure.metric import Better, Kind, Metric, View, distribution, with_interval

HIGHER, LOWER, NEITHER = Better.HIGHER, Better.LOWER, Better.NEITHER
NUMBER, COUNT, SHARE, CHANGE = Kind.NUMBER, Kind.COUNT, Kind.SHARE, Kind.CHANGE

PERCENTILES = (50, 75, 90, 95, 99)
_STAGE_PLACES = {
    "tokenize": "the tokenizer",
    "queue": "the scheduler's queue",
    "infer": "the model",
    "overhead": "none of the other stages (network, serialisation, event loops)",
}
STAGES = tuple(_STAGE_PLACES)
UNITS = ("pairs", "texts")  # the values of `Task.unit`

# Views that several metrics share
_HEADLINE = (View.TERMINAL, View.SWEEP, View.DASHBOARD, View.COMPARISON, View.PREDECESSOR,
             View.FRAME, View.MLFLOW_FIRST, View.MLFLOW_NOTE)  # fmt: skip
_LATENCY_VIEWS = {
    "p50": _HEADLINE,
    "p75": (View.FRAME,),
    "p90": (View.FRAME,),
    "p95": (*_HEADLINE, View.MLFLOW_BEST),
    "p99": (
        View.TERMINAL,
        View.SWEEP,
        View.DASHBOARD,
        View.COMPARISON,
        View.FRAME,
        View.MLFLOW_FIRST,
    ),
}


def _rate(unit: str, about: str, *shown: View) -> Metric:
    return Metric(f"throughput/{unit}_per_s", "throughput", f"{unit}/s", HIGHER, about, shown)


def _best(metric: Metric) -> Metric:
    return replace(metric, name=f"best/{metric.key}", title=f"best {metric.title}", shown=(),
                   about=f"The best {metric.title} of the cells that finished.")  # fmt: skip


PAIRS_PER_S = _rate(
    "pairs",
    "Scored pairs per second while the load is complete (from the first to the last send), by "
    "Little's law: the mean number of requests in the model / their mean time in the model.",
    *_HEADLINE, View.CELL_SUMMARY, View.MLFLOW_BEST,
)  # fmt: skip
TEXTS_PER_S = _rate(
    "texts", "Embedded texts per second, instead of pairs/s if the cell embeds.",
    View.CELL_SUMMARY, View.DASHBOARD, View.MLFLOW_NOTE,
)  # fmt: skip
REQUESTS_PER_S = _rate(
    "requests", "Successful requests per second, by the same method.", View.CELL_SUMMARY
)
TOKENS_PER_S = _rate(
    "tokens", "Real tokens (without padding) of the successful requests, by the same method.",
    View.CELL_SUMMARY,
)  # fmt: skip
RATES = (PAIRS_PER_S, TEXTS_PER_S)  # a cell has one of these
SPAN_RATES = tuple(
    Metric(f"throughput/span_{unit}_per_s", "throughput over the whole span", f"{unit}/s", HIGHER,
           f"Scored {unit} per second of the time from the first send to the last reply.",
           (View.CELL_SUMMARY,))
    for unit in UNITS
)  # fmt: skip
PER_DAY = tuple(
    Metric(f"throughput/million_{unit}_per_day", f"million {unit} per day", "", HIGHER,
           f"Millions of {unit} in 24 hours at the measured throughput.", (View.CELL_SUMMARY,))
    for unit in UNITS
)  # fmt: skip
COST = tuple(
    Metric(f"cost/per_million_{unit}", f"cost per million {unit}", "", LOWER,
           f"Price of the time for a million {unit} at the measured throughput, in the currency of "
           "`cost.per_hour`; absent without that price.",
           (View.CELL_SUMMARY, View.SWEEP, View.COMPARISON, View.MLFLOW_FIRST))
    for unit in UNITS
)  # fmt: skip
LATENCY = distribution(
    "latency", "latency", "counted from when the request was due", PERCENTILES, _LATENCY_VIEWS
)
P95_LATENCY = LATENCY["p95"]
SERVICE = distribution(
    "service", "service time", "counted from when the request was sent", PERCENTILES
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
    for stage, place in _STAGE_PLACES.items()
    for name, about in _STAGE_STATISTICS.items()
}  # fmt: skip

RSS_PEAK_MB = Metric(
    "memory/rss_peak_mb", "RSS peak while measuring", "MB", LOWER,
    "Peak resident set size of the server's processes during the measurement.",
    (*_HEADLINE, View.CELL_MEMORY), short="RSS peak", in_every_cell=True,
)  # fmt: skip
RSS_LOAD_PEAK_MB = Metric(
    "memory/rss_load_peak_mb", "RSS peak while loading", "MB", LOWER,
    "Peak resident set size of the server's processes while the model is loaded, converted and "
    "compiled. Conversions are cached, so only the first cell of a model includes one.",
    (View.CELL_MEMORY,),
)  # fmt: skip
DEVICE_PEAK_MB = Metric(
    "memory/device_peak_mb", "device peak", "MB", LOWER,
    "Peak memory on the GPU during the measurement; absent on a CPU.",
    (View.SWEEP, View.COMPARISON, View.FRAME, View.MLFLOW_FIRST, View.CELL_MEMORY),
)  # fmt: skip
MODEL_MB = Metric(
    "memory/model_mb", "weights", "MB", LOWER,
    "Size of one copy of the model's weights as stored in memory.",
    (View.SWEEP, View.MLFLOW_FIRST, View.MLFLOW_NOTE, View.CELL_MEMORY),
)  # fmt: skip
PER_BATCH = tuple(
    Metric(f"batching/{unit}_per_batch", f"{unit} per micro-batch", "", NEITHER,
           f"Mean number of {unit} per call of the model.", (View.CELL_WORK,))
    for unit in UNITS
)  # fmt: skip
PADDING_WASTE = Metric(
    "batching/padding_waste", "padding waste", "%", LOWER,
    "Share of the computed token positions that are padding.",
    (View.FRAME, View.CELL_WORK), kind=SHARE,
)  # fmt: skip
REQUESTS_OK = Metric(
    "requests/ok", "requests ok", "", HIGHER, "Requests that succeeded.",
    (View.CELL_SUMMARY, View.FRAME), kind=COUNT, in_every_cell=True,
)  # fmt: skip
REQUESTS_FAILED = Metric(
    "requests/failed", "requests failed", "", LOWER,
    "Requests that ended with an error. All other metrics exclude them.",
    (View.CELL_SUMMARY,), kind=COUNT, in_every_cell=True,
)  # fmt: skip
STALLS = Metric(
    "requests/stalls", "stalls", "", LOWER,
    "Times without a reply while requests were in flight, longer than half a second and than five "
    "median service times.", (View.CELL_WORK,), kind=COUNT,
)  # fmt: skip

CORES_USED = Metric(
    "cpu/cores_used", "CPU cores used by the server", "", NEITHER,
    "CPU seconds of the server's processes per second of the measurement.", (View.CELL_WORK,),
)  # fmt: skip
CORES_USED_BY_OTHERS = Metric(
    "harness/cores_used_by_others", "CPU cores used by other processes", "", LOWER,
    "CPU seconds per second of processes that do not belong to the run, on the cores that "
    "the run may use.", (View.CELL_HARNESS,),
)  # fmt: skip
CPU_STEAL = Metric(
    "harness/cpu_steal", "stolen CPU time", "%", LOWER,
    "Share of the wanted CPU time that the hypervisor gave to others.",
    (View.CELL_HARNESS,), kind=SHARE,
)  # fmt: skip

MAX_ABS_DIFF = Metric(
    "quality/max_abs_diff", "largest score difference", "", LOWER,
    "Largest absolute difference between a score and the fp32 reference's, in units of the score.",
    (View.QUALITY,), short="max diff",
)  # fmt: skip
MEAN_ABS_DIFF = Metric(
    "quality/mean_abs_diff", "mean score difference", "", LOWER,
    "Mean absolute difference between the scores and the fp32 reference's.",
    (View.QUALITY,), short="mean diff",
)  # fmt: skip
TOP10_OVERLAP = Metric(
    "quality/top10_overlap", "share of the top ten in common", "", HIGHER,
    "Share of the reference's first ten passages that are among the cell's first ten, mean "
    "over the queries with more than ten.", (View.QUALITY,), short="top 10 in common",
)  # fmt: skip
KENDALL_TAU = Metric(
    "quality/kendall_tau", "Kendall's tau", "", HIGHER,
    "Kendall's tau-b with the reference's order, mean over the queries; 1 means the same order.",
    (View.SWEEP, View.QUALITY), short="tau",
)  # fmt: skip
NDCG_AT_10 = Metric(
    "quality/ndcg_at_10", "nDCG@10", "", HIGHER,
    "nDCG of the first ten passages with the relevance judgements, mean over the queries.",
    (View.QUALITY, View.MLFLOW_FIRST),
)  # fmt: skip
MRR_AT_10 = Metric(
    "quality/mrr_at_10", "MRR@10", "", HIGHER,
    "Reciprocal rank of the first relevant passage among the first ten, mean over the queries.",
    (View.QUALITY,),
)  # fmt: skip
NDCG_AT_10_CHANGE = Metric(
    "quality/ndcg_at_10_change", "nDCG@10 vs fp32", "%", HIGHER,
    "Relative change of nDCG@10 from the fp32 reference on the same queries.",
    (View.SWEEP, View.QUALITY), kind=CHANGE,
)  # fmt: skip
# They say nothing if the scores are the reference's, apart from rounding
OF_SCORE_CHANGE = (MAX_ABS_DIFF, MEAN_ABS_DIFF, KENDALL_TAU, TOP10_OVERLAP, NDCG_AT_10_CHANGE)
JUDGED_QUERIES = Metric(
    "quality/judged_queries", "judged queries", "", NEITHER,
    "Checked queries with at least one relevant passage.", kind=COUNT,
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
         "Pearson's r of pairs / latency and latency, over all requests."),
        ("window", "window throughput and median latency",
         "Pearson's r of throughput and median latency, over all windows."),
        ("tokens", "tokens of a request and latency",
         "Pearson's r of a request's real tokens and its latency, over all requests."),
    )
}  # fmt: skip

METRICS: tuple[Metric, ...] = (
    *with_interval(PAIRS_PER_S),
    *with_interval(TEXTS_PER_S),
    REQUESTS_PER_S,
    TOKENS_PER_S,
    *SPAN_RATES,
    *PER_DAY,
    *COST,
    *LATENCY.values(),
    *SERVICE.values(),
    *STAGE.values(),
    Metric("memory/rss_before_load_mb", "RSS before load", "MB", NEITHER,
           "Resident set size of the server process before it loads the model.",
           (View.CELL_MEMORY,)),
    Metric("memory/rss_after_load_mb", "RSS after load", "MB", LOWER,
           "Resident set size of the server's processes after the model is loaded.",
           (View.CELL_MEMORY,)),
    RSS_LOAD_PEAK_MB,
    RSS_PEAK_MB,
    DEVICE_PEAK_MB,
    MODEL_MB,
    Metric("batching/batches", "micro-batches", "", NEITHER,
           "Calls of the model during the measurement.", kind=COUNT),
    *PER_BATCH,
    PADDING_WASTE,
    CORES_USED,
    Metric("harness/cores_used", "CPU cores used by the client process", "", NEITHER,
           "CPU seconds of the client process per second of the measurement. With "
           "target=inprocess this process contains the server too.", (View.CELL_WORK,)),
    Metric("compile/recompilations", "graphs compiled while measuring", "", LOWER,
           "Graphs that torch.compile compiled during the measurement. They distort the latencies.",
           kind=COUNT),
    Metric("harness/client_cpu_share", "event loop busy", "%", NEITHER,
           "Share of the measurement during which the client's event loop used the CPU. With "
           "target=inprocess the server uses the same loop.", (View.CELL_HARNESS,), kind=SHARE),
    Metric("harness/loop_lag_p99_ms", "p99 of the event loop's lag", "ms", LOWER,
           "99th percentile of the time by which the client's event loop runs late what is due.",
           (View.CELL_HARNESS,)),
    Metric("harness/schedule_lag_p99_ms", "p99 of the delay before sending", "ms", LOWER,
           "99th percentile of the time from when a request was due until the client sent it.",
           (View.CELL_HARNESS,)),
    CORES_USED_BY_OTHERS,
    Metric("harness/cores_idle", "idle CPU cores", "", NEITHER,
           "Idle seconds per second, of the cores that the run may use.", (View.CELL_HARNESS,)),
    Metric("harness/cpu_pressure", "CPU pressure", "%", NEITHER,
           "Share of the measurement during which some thread of the machine waited for a core "
           "(Linux PSI, `some`). The threads of the run count too.",
           (View.CELL_HARNESS,), kind=SHARE),
    CPU_STEAL,
    Metric("harness/cpu_mhz_min", "lowest CPU frequency", "MHz", NEITHER,
           "Lowest frequency of any core, read once per second; absent on most virtual machines.",
           (View.CELL_HARNESS,), digits=4),
    Metric("harness/cpu_mhz_max", "highest CPU frequency", "MHz", NEITHER,
           "Highest frequency of any core, read once per second.", (View.CELL_HARNESS,), digits=4),
    Metric("harness/throttle_events", "times a core was throttled", "", LOWER,
           "How often heat throttled a core; absent on most virtual machines.",
           (View.CELL_HARNESS,), kind=COUNT),
    Metric("harness/major_page_faults", "major page faults", "", LOWER,
           "Page faults of the client process that waited for a disk.",
           (View.CELL_HARNESS,), kind=COUNT),
    Metric("harness/gc_ms", "garbage collection", "ms", LOWER,
           "Time of all garbage collections of the client process, in which its threads stop.",
           (View.CELL_HARNESS,)),
    REQUESTS_OK,
    REQUESTS_FAILED,
    STALLS,
    *(Metric(f"requests/truncated_{unit}", f"truncated {unit}", "", NEITHER,
             f"{unit.capitalize()} that were truncated to the model's maximum length.",
             (View.CELL_WORK,), kind=COUNT)
      for unit in UNITS),
    Metric("startup/load_s", "load the model", "s", LOWER,
           "Time to load the model on all workers.", (View.CELL_STARTUP,)),
    Metric("startup/compile_s", "compile", "s", LOWER,
           "Time for compilation and first runs of the model, before any request.",
           (View.CELL_STARTUP,)),
    Metric("startup/warmup_s", "warm up", "s", NEITHER,
           "Time for the warm-up requests, which are not measured.", (View.CELL_STARTUP,)),
    MAX_ABS_DIFF,
    MEAN_ABS_DIFF,
    KENDALL_TAU,
    TOP10_OVERLAP,
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

# Metrics of a sweep's parent run in MLflow
BEST = {metric.name: _best(metric) for metric in METRICS if View.MLFLOW_BEST in metric.shown}
CELLS = {
    status: Metric(f"cells/{status}", f"cells {status}", "", NEITHER,
                   f"Number of cells with the status {status}.", kind=COUNT)
    for status in ("finished", "failed", "unavailable", "unsupported")
}  # fmt: skip
# Live series of a cell's run in MLflow: one value per window, step = seconds since the start
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
    """Return throughput in `unit` (`Task.unit`: pairs or texts) per second."""
    return RATES[UNITS.index(unit)]


def per_batch(unit: str) -> Metric:
    """Return the mean number of `unit` (`Task.unit`: pairs or texts) per micro-batch."""
    return PER_BATCH[UNITS.index(unit)]


def per_day(unit: str) -> Metric:
    """Return what is computed in a day, in millions of `unit`."""
    return PER_DAY[UNITS.index(unit)]


def cost(unit: str) -> Metric:
    """Return the cost of a million of `unit`."""
    return COST[UNITS.index(unit)]


def latency(q: int) -> Metric:
    """Return percentile `q` of the latency, one of PERCENTILES."""
    return LATENCY[f"p{q}"]


def stage(name: str, statistic: str) -> Metric:
    """Return the `p50`, `p95` or `mean` of the time in a stage (one of STAGES)."""
    return STAGE[name, statistic]


def shown(view: View) -> tuple[Metric, ...]:
    """Return the metrics of a view in order."""
    return tuple(metric for metric in METRICS if view in metric.shown)


def names(view: View) -> tuple[str, ...]:
    """Return the names of a view's metrics in order."""
    return tuple(metric.name for metric in shown(view))


def family(name: str) -> str:
    """Return the part of a metric's name before the slash. The metric may be unknown."""
    return name.partition("/")[0]


def key(name: str) -> str:
    """Return the part of a metric's name after the slash. The metric may be unknown."""
    return name.partition("/")[2]


def live_name(series: str) -> str:
    """Return the MLflow name of a series in result.json."""
    return f"live/{series}"


def is_live(name: str) -> bool:
    """Return whether a metric in MLflow is a live series."""
    return name.startswith(live_name(""))
