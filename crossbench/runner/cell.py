"""One cell in the measured process: prepare model and data, measure, check the ranking."""

from __future__ import annotations

import asyncio
import signal
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import grpc

from crossbench.errors import (
    BackendUnavailable,
    CrossbenchError,
    UnsupportedDevice,
    UnsupportedQuant,
)
from crossbench.events import EventStream
from crossbench.load.driver import ClosedLoop
from crossbench.load.no_tokens import refuse_no_tokens
from crossbench.load.prepared import prepare
from crossbench.load.requests import first_pairs
from crossbench.measure.probes import environment
from crossbench.models.folder import ModelFolder
from crossbench.quality.check import Checked, compare, score_sample, unchecked
from crossbench.quality.sample import Check
from crossbench.quality.score_cache import ReferenceCache
from crossbench.results import RunResult, Status
from crossbench.runner.build import build
from crossbench.runner.checks import check_support, check_task, check_values
from crossbench.runner.compose import build_reference, build_server
from crossbench.runner.measure import measure
from crossbench.runner.models import fetch_model
from crossbench.runner.result import CellData, Measured, to_result
from crossbench.runner.targets import Target
from crossbench.serving.client import InferenceClient, words_of
from crossbench.settings.identity import cell_id
from crossbench.settings.schema import CellSettings
from crossbench.types import Pipeline, RequestRecord, Task


@dataclass(frozen=True, slots=True)
class Outcome:
    """A cell's result and records, and the rest of its quality check where there is one to do."""

    result: RunResult
    records: Sequence[RequestRecord] = ()
    check_quality: Callable[[], Checked] | None = None


def measure_cell(config: Mapping[str, Any], events: EventStream) -> Outcome:
    """Measure one cell; every failure becomes a result with its reason."""
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    identity = cell_id(config)

    def ended(status: Status, error: str) -> Outcome:
        result = RunResult(
            status=status,
            config=config,
            cell_id=identity,
            error=error,
            environment=environment(),
            started_at=started_at,
        )
        return Outcome(result)

    try:
        settings = check_values(config)
        check_support(config, settings)
        check: Check = build(config["quality"])
        events.stage("preparing model and data")
        model = fetch_model(config, settings)
        task = check_task(config, model)
        data = load_data(config, settings, model)
        if not data.query_tokens.smallest or not data.passage_tokens.smallest:
            refuse_no_tokens(data.dataset.lists, model, task)
        measured = asyncio.run(_drive(config, settings, model, data, task, check, events))
    except (UnsupportedQuant, UnsupportedDevice) as error:
        return ended(Status.UNSUPPORTED, str(error))
    except BackendUnavailable as error:
        return ended(Status.UNAVAILABLE, str(error))
    except CrossbenchError as error:
        return ended(Status.FAILED, str(error))
    except grpc.aio.AioRpcError as error:
        return ended(Status.FAILED, f"the server does not answer ({words_of(error)})")
    except Exception as error:
        traceback.print_exc()
        return ended(Status.FAILED, f"{type(error).__name__}: {error}")
    result = to_result(config, identity, started_at, model.digest, data, task, measured)
    served = measured.served
    if served is None or served.why:
        if served is not None:
            why = served.why
        elif measured.non_finite:
            why = "the model's values are not finite"
        else:
            why = measured.cut_short or "no request succeeded"
        checked = unchecked(why, check.name)
        return Outcome(_with_quality(result, checked), measured.records)

    def finish() -> Checked:
        cache = ReferenceCache(settings.cache_dir / "reference", model)
        reference = partial(build_reference, settings, model)
        return compare(served, check, cache, reference, settings.seed, events.stage)

    # Until the check has come to its end
    pending = unchecked("the check did not come to its end", served.check)
    return Outcome(_with_quality(result, pending), measured.records, finish)


def _with_quality(result: RunResult, checked: Checked) -> RunResult:
    metrics = {**result.metrics, **checked.metrics}
    return replace(result, metrics=metrics, quality=checked.summary)


def load_data(config: Mapping[str, Any], settings: CellSettings, model: ModelFolder) -> CellData:
    """Load the data set and describe the token lengths that are really sent.

    Raises:
        DatasetError: it is missing, empty or malformed.
    """
    prepared = prepare(
        build(config["dataset"]), model, settings.seed, settings.cache_dir / "datasets"
    )
    return CellData(prepared.dataset, prepared.query_tokens, prepared.passage_tokens)


async def _drive(
    config: Mapping[str, Any],
    settings: CellSettings,
    model: ModelFolder,
    data: CellData,
    task: Task,
    check: Check,
    events: EventStream,
) -> Measured:
    """Open the target, warm up, measure, score the quality check's sample, close."""
    target: Target = build(config["target"])
    load: ClosedLoop = build(config["load"], concurrency=settings.concurrency)

    known: Sequence[tuple[str, str]] = ()
    if settings.pipeline is Pipeline.INFER:
        sent = (settings.warmup_requests + settings.requests) * settings.batch
        known = list(first_pairs(data.dataset.lists, sent))
    events.stage("loading and compiling")
    try:
        address = await target.open(partial(build_server, config, settings, model, known))
        events.server(address)
        async with InferenceClient(address) as client:
            interrupted = asyncio.Event()
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, interrupted.set)
            info = await client.info()
            measured = await measure(client, load, info, settings, data, task, interrupted, events)
            if (
                measured.cut_short
                or measured.non_finite
                or not any(record.ok for record in measured.records)
            ):
                return measured
            served = await score_sample(
                client,
                check,
                data.dataset.lists,
                info,
                settings=settings,
                digest=model.digest,
                interrupted=interrupted,
                announce=events.stage,
            )
            served = replace(served, judged_left_out=data.dataset.judged_left_out)
            return replace(measured, served=served, non_finite=served.non_finite)
    finally:
        events.server(None)
        await target.close()
