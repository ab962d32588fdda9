"""Measure one cell: prepare the model and the data, measure, check the ranking quality."""

from __future__ import annotations

import asyncio
import signal
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

import grpc

from crossbench.errors import (
    BackendUnavailable,
    CrossbenchError,
    UnsupportedDevice,
    UnsupportedQuant,
)
from crossbench.events import ServerListens, ServerStops
from crossbench.load.no_tokens import refuse_no_tokens
from crossbench.load.precise_loop import precise_event_loop
from crossbench.load.prepared import prepare
from crossbench.load.requests import first_pairs
from crossbench.load.schedule import Schedule
from crossbench.measure.probes import environment
from crossbench.measure.scraped import ScrapedValue
from crossbench.models.folder import ModelFolder
from crossbench.quality.check import (
    QualityResult,
    ServedScores,
    compare,
    reason_not_checked,
    score_sample,
    unchecked,
)
from crossbench.quality.sample import Check, QualityCheck
from crossbench.quality.score_cache import ReferenceCache
from crossbench.results import UNFINISHED_CHECK, RunResult, Status
from crossbench.runner.checks import check_config, check_support, check_task
from crossbench.runner.compose import build_reference, server_maker
from crossbench.runner.event_stream import EventStream
from crossbench.runner.load import build_traffic
from crossbench.runner.measure import measure
from crossbench.runner.models import fetch_model
from crossbench.runner.remote_match import check_remote
from crossbench.runner.result import CellData, Measured, to_result
from crossbench.runner.targets import Target, client_access, connect
from crossbench.serving.client import error_message
from crossbench.settings.cell_config import CellConfig
from crossbench.settings.plan import CellPlan
from crossbench.types import Pipeline, RequestRecord
from crossbench.wording import error_text


@dataclass(frozen=True, slots=True)
class Outcome:
    """A cell's result and raw data, and the rest of its quality check if there is one."""

    result: RunResult
    records: Sequence[RequestRecord] = ()
    schedule: Schedule | None = None
    scraped: Sequence[ScrapedValue] = ()
    check_quality: Callable[[], QualityResult] | None = None


def measure_cell(
    config: CellConfig, events: EventStream, checked_in: str = "", swept: Sequence[str] = ()
) -> Outcome:
    """Measure one cell; every failure becomes a result with an error message.

    `checked_in` is the folder of the repeat that has checked the quality of this cell; this one
    then measures only speed. Empty if none has. `swept` are the keys that the sweep varies.
    """
    started_at = datetime.now(UTC).isoformat(timespec="seconds")

    def failure(status: Status, error: str) -> Outcome:
        result = RunResult(
            status=status,
            config=config,
            cell_id=config.cell_id,
            error=error,
            environment=environment(),
            started_at=started_at,
        )
        return Outcome(result)

    try:
        plan = check_config(config)
        check_support(plan)
        check: Check = plan.quality.build()
        events.stage("preparing model and data")
        model = fetch_model(plan)
        check_task(plan, model)
        data = load_data(plan, model)
        if not data.query_tokens.smallest or not data.passage_tokens.smallest:
            refuse_no_tokens(data.dataset.lists, model, plan.task)
        with asyncio.Runner(loop_factory=precise_event_loop) as runner:
            measured = runner.run(_drive(plan, model, data, check, events, checked_in, swept))
    except (UnsupportedQuant, UnsupportedDevice) as error:
        return failure(Status.UNSUPPORTED, str(error))
    except BackendUnavailable as error:
        return failure(Status.UNAVAILABLE, str(error))
    except CrossbenchError as error:
        return failure(Status.FAILED, str(error))
    except grpc.aio.AioRpcError as error:
        return failure(Status.FAILED, f"the server does not answer ({error_message(error)})")
    except Exception as error:
        traceback.print_exc()
        return failure(Status.FAILED, error_text(error))
    result = to_result(plan, started_at, model.digest, data, measured)
    outcome = Outcome(result, measured.records, measured.schedule, measured.scraped)
    served = measured.served
    if served is None or served.skip_reason:
        if served is not None:
            why = served.skip_reason
        elif measured.non_finite:
            why = "the model's values are not finite"
        else:
            why = measured.cut_short or "no request succeeded"
        checked = unchecked(why, check.name, checked_in)
        return replace(outcome, result=with_quality(result, checked))

    def finish() -> QualityResult:
        cache = ReferenceCache(plan.settings.cache_dir / "reference", model)
        reference = partial(build_reference, plan, model)
        return compare(served, check, cache, reference, plan.settings.seed, events.stage)

    # The quality in the result until the check has finished
    pending = unchecked(UNFINISHED_CHECK, served.check)
    return replace(outcome, result=with_quality(result, pending), check_quality=finish)


def with_quality(result: RunResult, checked: QualityResult) -> RunResult:
    """Return the result with the metrics and the summary of a quality check."""
    metrics = {**result.metrics, **checked.metrics}
    return replace(result, metrics=metrics, quality=checked.summary)


def load_data(plan: CellPlan, model: ModelFolder) -> CellData:
    """Load the data set and summarise the token lengths of its texts with the served tokenizer.

    Raises:
        DatasetError: the data set is missing, empty or malformed.
    """
    settings = plan.settings
    prepared = prepare(plan.dataset.build(), model, settings.seed, settings.cache_dir / "datasets")
    return CellData(prepared.dataset, prepared.query_tokens, prepared.passage_tokens)


async def _drive(
    plan: CellPlan,
    model: ModelFolder,
    data: CellData,
    check: Check,
    events: EventStream,
    checked_in: str,
    swept: Sequence[str],
) -> Measured:
    """Open the target, warm up, measure, score the quality check's sample, close the target."""
    settings = plan.settings
    target: Target = plan.target.build()
    traffic = build_traffic(plan)
    known: Sequence[tuple[str, str]] = ()
    if settings.pipeline is Pipeline.INFER:
        sizes = traffic.options.distribution
        largest = max(sizes.pairs) if sizes else settings.batch
        requests = None if settings.requests is None else settings.requests * largest
        warmup_pairs = settings.warmup_requests * largest
        count = None if requests is None else warmup_pairs + requests
        known = list(first_pairs(data.dataset.lists, count))
    events.stage("loading and compiling")
    try:
        address = await target.open(server_maker(plan, model, known))
        if not plan.of_others:  # the live page cannot read the counters of other servers
            events.send(ServerListens(address, client_access(plan, target).as_paths()))
        async with connect(plan, target, address) as client:
            interrupted = asyncio.Event()
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, interrupted.set)
            info = await client.info()
            check_remote(plan, swept, info, model)
            if plan.of_others:  # the user says that the server has this model
                info.models[0].digest = model.digest
                info.models[0].name = info.models[0].name or model.name
            measured = await measure(client, traffic, info, plan, data, interrupted, events)
            measured = replace(measured, cores=target.cores)
            if (
                measured.cut_short
                or measured.non_finite
                or not any(record.ok for record in measured.records)
            ):
                return measured
            why = reason_not_checked(check, settings.pipeline, info.models[0], model.digest)
            if why is None and checked_in:
                why = f"an earlier repeat of this cell was checked, in folder {checked_in}"
            if why is not None or not isinstance(check, QualityCheck):
                return replace(measured, served=ServedScores(check.name, skip_reason=why or ""))
            lists = data.dataset.lists
            served = await score_sample(
                client, check, lists, info, settings, interrupted, events.stage
            )
            served = replace(
                served,
                judged_left_out=data.dataset.judged_left_out,
                of_others=plan.of_others,
            )
            return replace(measured, served=served, non_finite=served.non_finite)
    finally:
        events.send(ServerStops())
        await target.close()
