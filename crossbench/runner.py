"""The measuring child: `python -m crossbench.runner CELL_DIR` measures the cell in its config.yaml.

It composes data, server and client, and writes result.json and requests.parquet. It knows no
MLflow, no plots and no web. Its standard output is a pipe of events; it ends when its standard
input closes, so a parent that is killed leaves no orphan.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import grpc
from omegaconf import OmegaConf

from crossbench.backends.compilations import compilations
from crossbench.cell_result import CellData, Measured, server_metrics, to_result
from crossbench.command import denied
from crossbench.compose import (
    build,
    build_reference,
    build_server,
    check_support,
    check_task,
    check_values,
    fetch_model,
)
from crossbench.config import CellSettings, cell_id
from crossbench.errors import (
    BackendUnavailable,
    CrossbenchError,
    UnsupportedDevice,
    UnsupportedQuant,
)
from crossbench.events import EventStream, Progress
from crossbench.load.datasets import LoadedDataset
from crossbench.load.driver import ClosedLoop, Stop
from crossbench.load.lengths import summarise as summarise_lengths
from crossbench.load.no_tokens import refuse_no_tokens
from crossbench.load.requests import fill_requests, fill_texts, first_pairs
from crossbench.load.sample import Check
from crossbench.measure.correlation import correlation_metrics
from crossbench.measure.probes import CpuMeter, environment
from crossbench.measure.statistics import summarise
from crossbench.models.folder import ModelFolder
from crossbench.models.tokenizer import PairTokenizer
from crossbench.quality import Checked, compare, score_sample, unchecked
from crossbench.reference import ReferenceCache
from crossbench.results import RunResult, Status, save_quality, save_records, save_result
from crossbench.serving import inference_pb2 as pb
from crossbench.serving.client import InferenceClient, words_of
from crossbench.serving.finite import NON_FINITE
from crossbench.targets import Target
from crossbench.types import Pipeline, RequestRecord, Task

CONFIG_FILE = "config.yaml"


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
    tokenizer = PairTokenizer(model)
    dataset: LoadedDataset = build(config["dataset"]).load(tokenizer, settings.seed)
    passages = [text for entry in dataset.lists for text in entry.passages]
    return CellData(
        dataset=dataset,
        query_tokens=summarise_lengths(tokenizer.count([entry.query for entry in dataset.lists])),
        passage_tokens=summarise_lengths(tokenizer.count(passages)),
    )


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


async def measure(
    client: InferenceClient,
    load: ClosedLoop,
    info: pb.ServerInfo,
    settings: CellSettings,
    data: CellData,
    task: Task,
    interrupted: asyncio.Event,
    events: EventStream,
) -> Measured:
    """Warm up, then drive the load between two looks at the server's own counters.

    Requests begin behind those set aside for the warm-up, however many of these its time allows:
    every cell of a sweep is measured on the same ones.
    """
    fill = fill_texts if task is Task.EMBED else fill_requests
    messages = fill(data.dataset.lists, settings.batch)
    first = list(islice(messages, settings.warmup_requests))
    warmup_reasons: dict[str, str] = {}

    events.stage("warming up")
    warming_s = time.perf_counter()
    if first:
        warmup = Stop(len(first), settings.warmup_max_seconds)
        await load.drive(
            client,
            iter(first),
            warmup,
            lambda _: None,
            interrupted,
            warmup_reasons.setdefault,
        )
    warmup_s = time.perf_counter() - warming_s

    events.stage("measuring")
    await client.reset_metrics()
    before = await client.metrics()
    compiled = compilations()
    cpu, started_s = CpuMeter(), time.perf_counter()
    stop = Stop(settings.requests, settings.max_seconds)
    reasons: dict[str, str] = {}
    records = await load.drive(
        client, messages, stop, Progress(events), interrupted, reasons.setdefault
    )
    wall_s, cores_used = time.perf_counter() - started_s, cpu.cores_used()
    recompiled = (compilations() or 0) - (compiled or 0)
    cut_short, reset_midway = "interrupted" if interrupted.is_set() else "", False

    metrics = {**summarise(records, task), **correlation_metrics(records)}
    try:
        after = await client.metrics()
    except grpc.aio.AioRpcError as error:
        cut_short = f"the server went away ({error.code().name})"
    else:
        metrics |= server_metrics(info, before, after, wall_s, task)
        reset_midway = after.since_reset_s < wall_s
    metrics |= {
        "startup/warmup_s": warmup_s,
        "harness/cores_used": cores_used,  # of this process, the server's too if it is here
    }
    if compiled is not None or recompiled:  # replicas in processes of their own are not counted
        metrics["compile/recompilations"] = float(recompiled)
    non_finite = {**reasons, **warmup_reasons}.get(NON_FINITE.name, "")
    return Measured(records, metrics, info, reasons, cut_short, reset_midway, non_finite)


def _end_with_parent() -> None:
    """Kill this process group once standard input closes: then nobody waits for the result."""

    def wait() -> None:
        while os.read(0, 4096):
            pass
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=wait, name="parent-watch", daemon=True).start()


def main(folder: Path) -> None:
    events = EventStream.take_over_stdout()
    _end_with_parent()
    config = OmegaConf.to_container(OmegaConf.load(folder / CONFIG_FILE))
    assert isinstance(config, dict)
    outcome = measure_cell({str(key): value for key, value in config.items()}, events)
    # What was measured is safe before the reference takes memory and time of its own; a disk that
    # has no room for the single requests may have it for their numbers
    result = outcome.result
    if outcome.records:
        result = saved(result, lambda: save_records(outcome.records, folder))
    save_result(result, folder)
    if outcome.check_quality is not None:
        checked = outcome.check_quality()
        if checked.pairs:
            result = saved(result, lambda: save_quality(checked.pairs, folder))
        save_result(_with_quality(result, checked), folder)


def saved(result: RunResult, save: Callable[[], Path]) -> RunResult:
    """The result, with a warning where a file beside it could not be written."""
    try:
        save()
    except OSError as error:
        return replace(result, warnings=[*result.warnings, f"a file is missing: {denied(error)}"])
    return result


if __name__ == "__main__":
    main(Path(sys.argv[1]))
