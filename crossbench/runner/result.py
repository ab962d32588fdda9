"""Turn the measurements of a cell's client into the RunResult of the cell."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from crossbench.load.datasets import LoadedDataset
from crossbench.load.lengths import PERCENTILES, LengthSummary, length_warnings
from crossbench.load.schedule import Schedule
from crossbench.load.stop import End
from crossbench.measure.catalogue import throughput
from crossbench.measure.correlation import correlation_intervals
from crossbench.measure.cost import throughput_costs
from crossbench.measure.probes import environment
from crossbench.measure.rate_windows import throughput_interval
from crossbench.measure.scraped import ScrapedValue, scraped_metrics
from crossbench.measure.stalls import stalls_s
from crossbench.measure.statistics import windows
from crossbench.measure.steps import Step
from crossbench.quality.check import ServedScores
from crossbench.result_facts import DatasetFacts, Lengths, ModelFacts
from crossbench.results import Failure, Flag, RunResult, Status
from crossbench.runner.http_target import HttpServer
from crossbench.runner.pinning import Cores, cpu_list
from crossbench.runner.targets import InProcess, Remote
from crossbench.serving import inference_pb2 as pb
from crossbench.serving.info import computes_scores
from crossbench.serving.server_settings import ServerSettings
from crossbench.settings.cell_config import CellConfig
from crossbench.settings.plan import CellPlan
from crossbench.types import RequestRecord, Task
from crossbench.wording import counted


@dataclass(frozen=True, slots=True)
class Measured:
    """The measurements of a cell's client.

    `reasons` has the first error message for each status of a failed request. `non_finite` is the
    first error message about a NaN or infinite score, in the warm-up, the measurement or the
    quality check; empty if there was none.
    """

    records: list[RequestRecord]
    metrics: dict[str, float]
    info: pb.ServerInfo
    reasons: Mapping[str, str]
    cut_short: str  # why it ended early, such as "interrupted"; empty if it did not
    counters_warning: str  # why the server's counters do not cover all of it; empty if they do
    non_finite: str
    flags: Mapping[str, str]  # `results.Flag` and its reason
    end: End
    warmup_warning: str  # empty if the server was steady when the measurement began
    schedule: Schedule | None  # when requests were due, if that was known beforehand
    steps: Sequence[Step]  # of a ramp
    served: ServedScores | None = None  # the scores for the quality check; None: nothing to check
    cores: Cores | None = None  # of client and server, if each has its own
    scraped: Sequence[ScrapedValue] = ()  # of target.scrape
    scrape_warning: str = ""  # samples that could not be read


@dataclass(frozen=True, slots=True)
class CellData:
    """The data set and the lengths of its texts in tokens of the served model."""

    dataset: LoadedDataset
    query_tokens: LengthSummary
    passage_tokens: LengthSummary


def server_metrics(
    info: pb.ServerInfo, before: pb.Metrics, after: pb.Metrics, wall_s: float, task: Task
) -> dict[str, float]:
    """Return the metrics that the server reports about the measurement."""
    startup = info.startup
    metrics = {
        "startup/load_s": startup.load_s,
        "startup/compile_s": startup.compile_s,
        "memory/rss_before_load_mb": startup.rss_before_load_mb,
        "memory/rss_after_load_mb": startup.rss_after_load_mb,
        "memory/rss_peak_mb": after.rss_peak_mb,
        "cpu/cores_used": (after.cpu_s - before.cpu_s) / wall_s,
        "batching/batches": float(after.batches),
    }
    if after.batches:
        metrics[f"batching/{task.unit}_per_batch"] = after.batch_pairs / after.batches
    if after.tokens_computed:
        metrics["batching/padding_waste"] = 1.0 - after.batch_tokens / after.tokens_computed
    if startup.HasField("rss_load_peak_mb"):
        metrics["memory/rss_load_peak_mb"] = startup.rss_load_peak_mb
    if info.models[0].HasField("model_mb"):
        metrics["memory/model_mb"] = info.models[0].model_mb
    if after.HasField("device_memory_peak_mb"):
        metrics["memory/device_peak_mb"] = after.device_memory_peak_mb
    return metrics


def as_served(
    config: CellConfig, served: pb.ModelInfo, digest: str
) -> tuple[CellConfig, list[str]]:
    """Return the config with what a running server actually serves, and the list of differences.

    `digest` is that of the config's own model. If a choice differs, only its name is known. What
    the server does not tell is as in the config.
    """
    told = {"backend": served.backend, "quant": served.quant}
    actual = {key: name for key, name in told.items() if name}
    if served.digest != digest:
        actual["model"] = served.name
    differing = {
        key: name for key, name in actual.items() if key == "model" or config.value(key) != name
    }
    differences = [f"{key}={name} (not {config.value(key)})" for key, name in differing.items()]
    return config.with_choices(differing), differences


def to_result(
    plan: CellPlan,
    started_at: str,
    digest: str,
    data: CellData,
    measured: Measured,
) -> RunResult:
    """Return the result of the cell, without its quality check."""
    config, differences = as_served(plan.config, measured.info.models[0], digest)
    records = measured.records
    found = {
        **measured.metrics,
        **throughput_interval(records, throughput(plan.task.unit), measured.metrics),
        **correlation_intervals(records),
        **scraped_metrics(measured.scraped),
        **throughput_costs(measured.metrics, plan.task.unit, plan.settings.price_per_hour),
    }
    metrics = {name: value for name, value in found.items() if math.isfinite(value)}
    dropped = [name for name in found if name not in metrics]
    error = _error(measured)
    return RunResult(
        status=Status.FAILED if error else Status.FINISHED,
        config=config,
        cell_id=config.cell_id,
        error=error,
        metrics=metrics,
        environment={**environment(), **_core_facts(measured.cores)},
        series=windows(measured.records).series(plan.task) if not error else {},
        model=_model_facts(measured.info),
        dataset=_dataset_facts(data),
        warnings=[
            *(f"Data set: {warning}" for warning in data.dataset.warnings),
            *length_warnings(data.query_tokens, data.passage_tokens),
            *_access_warnings(plan),
            *_server_warnings(differences, measured, dropped),
            *([] if error else _failure_warnings(measured)),
            *filter(None, (measured.warmup_warning, measured.scrape_warning)),
            *_load_warnings(measured),
            *_audit_warnings(measured, plan),
        ],
        end=str(measured.end),
        failure=_failure(measured),
        flags=measured.flags,
        steps=[asdict(step) for step in measured.steps],
        started_at=started_at,
    )


def _error(measured: Measured) -> str | None:
    """Return why the cell failed, or None if its metrics are valid."""
    failed = [record.status for record in measured.records if not record.ok]
    not_finite = f"the model's values are not finite ({measured.non_finite})"
    if measured.cut_short:
        sent = counted(len(measured.records), "request")
        error = f"{measured.cut_short} after {sent}; their records are kept"
        return f"{error}; {not_finite}" if measured.non_finite else error
    if measured.non_finite:
        sent = counted(len(measured.records), "measured request")
        return f"{not_finite}; {len(failed)} of {sent} failed, their records are kept"
    if not measured.records:
        return "the load sent no request"
    if len(failed) == len(measured.records):
        return f"all {len(failed)} requests failed, the first with {measured.reasons[failed[0]]}"
    return None


def _failure(measured: Measured) -> str:
    """Return the `Failure` of a measurement that was cut short, else an empty text."""
    if not measured.cut_short:
        return ""
    return Failure.INTERRUPTED if measured.cut_short == Failure.INTERRUPTED else Failure.CRASHED


def _access_warnings(plan: CellPlan) -> list[str]:
    """Return who may come in, and which secrets lie open."""
    if plan.server is not None:
        settings: ServerSettings = plan.server.build()
        return settings.warnings()
    target = plan.target.build()
    if isinstance(target, HttpServer):
        return target.warnings()
    return target.access.warnings(target.address) if isinstance(target, Remote) else []


def _server_warnings(
    differences: Sequence[str], measured: Measured, dropped: Sequence[str]
) -> Iterator[str]:
    """Yield warnings about the server. `dropped` are the names of metrics that were not finite."""
    if differences:
        yield (
            f"the server runs {', '.join(differences)}, and the cell is named after that: give the "
            "client the same overrides as the server"
        )
    if again := measured.metrics.get("compile/recompilations"):
        yield (
            f"torch.compile compiled {again:.0f} graphs during the measurement, and latencies "
            "include that time: give a longer warm-up (warmup_requests, warmup_max_seconds)"
        )
    if measured.counters_warning:
        yield measured.counters_warning
    if dropped:
        yield f"{', '.join(dropped)}: the server sent NaN or infinite values, which are left out"


def _failure_warnings(measured: Measured) -> Iterator[str]:
    """Yield a warning if some requests failed and others did not."""
    failed = [record.status for record in measured.records if not record.ok]
    if failed:
        reasons = "; ".join(measured.reasons[status] for status in sorted(set(failed)))
        yield (
            f"{len(failed)} of {len(measured.records)} requests failed ({reasons}); the metrics "
            "are of the other requests"
        )


def _load_warnings(measured: Measured) -> Iterator[str]:
    """Yield warnings about how the server kept up with the load."""
    if reason := measured.flags.get(Flag.OVER_SATURATED):
        yield (
            f"Over-saturated: {reason} The p95 of such a run depends on its length, so it is not "
            "compared with others: give a lower rate"
        )
    stalls = stalls_s(measured.records)
    if len(stalls):
        yield (
            f"The server stalled {counted(len(stalls), 'time')} (at most {stalls.max():.1f} s). It "
            "answered nothing while requests were in flight. Check what else ran on the machine"
        )


def _audit_warnings(measured: Measured, plan: CellPlan) -> Iterator[str]:
    """Yield warnings about what limited the cell besides the server."""
    if reason := measured.flags.get(Flag.DISTURBED):
        yield (
            f"Disturbed: {reason} The cell would be faster on its own: end the other work, and run "
            "the cell again"
        )
    if reason := measured.flags.get(Flag.CLIENT_BOUND):
        yield f"Client-bound: {reason} " + (
            "The server uses this loop too: give target=process, or larger requests (batch)"
            if plan.target.type is InProcess
            else "The server may be able to answer more: give larger requests (batch)"
        )


def _core_facts(cores: Cores | None) -> dict[str, str]:
    """Return the logical CPUs of client and server for result.json, if each has its own."""
    if cores is None:
        return {}
    return {"cores_client": cpu_list(cores.client), "cores_server": cpu_list(cores.server)}


def _model_facts(info: pb.ServerInfo) -> ModelFacts:
    """Return the facts about the served model and its server for result.json.

    What a server of other people does not tell is left out.
    """
    served, *others = info.models
    facts: ModelFacts = {
        "name": served.name,
        "backend": served.backend,
        "computes_scores": computes_scores(served),
        "encoder": served.encoder,
        "quant": served.quant,
        "device": served.device,
        "architecture": served.architecture,
        "max_length": served.max_length,
        "embedding_dim": served.embedding_dim or None,
        "digest": served.digest,
        "caveat": served.caveat or None,
        "workers": info.workers,
        "threads": info.threads,
    }
    if not served.backend:
        del facts["backend"], facts["encoder"], facts["quant"], facts["device"]
        del facts["architecture"], facts["max_length"], facts["workers"], facts["threads"]
    if others:
        facts["also_served"] = [model.name for model in others]
    return facts


def _dataset_facts(data: CellData) -> DatasetFacts:
    """Return the facts about the data set for result.json."""
    dataset = data.dataset
    facts: DatasetFacts = {
        "name": dataset.name,
        "source": dataset.source,
        "digest": dataset.digest,
        "lists": len(dataset.lists),
        "pairs": sum(len(entry.passages) for entry in dataset.lists),
        "query_tokens": _by_percentile(data.query_tokens),
        "passage_tokens": _by_percentile(data.passage_tokens),
    }
    if dataset.files:
        facts["files"] = ", ".join(dataset.files)
    return facts


def _by_percentile(lengths: LengthSummary) -> Lengths:
    """Return token lengths for result.json: percentiles by their number, mean, min, max."""
    quantiles = zip(PERCENTILES, lengths.quantiles, strict=True)
    summary: dict[str, float] = {str(percent): value for percent, value in quantiles}
    return {**summary, "mean": lengths.mean, "min": lengths.smallest, "max": lengths.largest}
