"""The measurement against a real server: equal requests for all cells, metrics, failures."""

from __future__ import annotations

import asyncio
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from crossbench.backends.noop import NoopBackend
from crossbench.load.datasets import LoadedDataset
from crossbench.load.lengths import summarise as summarise_lengths
from crossbench.load.protocol import Load
from crossbench.load.requests import RequestOptions
from crossbench.load.sender import Sender
from crossbench.load.stop import Fixed, Limits
from crossbench.models.folder import ModelFolder
from crossbench.results import RunResult, Status, save_records
from crossbench.runner.event_stream import EventStream
from crossbench.runner.load import Traffic
from crossbench.runner.measure import measure
from crossbench.runner.result import CellData, Measured, to_result
from crossbench.serving.client import InferenceClient
from crossbench.settings.cell_config import CellConfig
from crossbench.types import Inference, QueryPassages, TokenBatch
from tests.helpers.plans import plan_with
from tests.helpers.quality_samples import settings
from tests.helpers.serving import closed_loop, noop, noop_of, serving

LISTS = tuple(
    QueryPassages(
        query_id=str(number),
        query="which river",
        passage_ids=tuple(map(str, range(7))),
        passages=tuple(f"river {'of water ' * ((number * 7 + place) % 60)}" for place in range(7)),
    )
    for number in range(40)
)
CONFIG = CellConfig({"backend": {"name": ""}, "quant": {"name": ""}, "load": {}})


def data() -> CellData:
    lengths = summarise_lengths([5, 6])
    return CellData(LoadedDataset("made", "here", "0", LISTS), lengths, lengths)


async def measured(
    address: str, interrupted: asyncio.Event, load: Load | None = None, **changes: Any
) -> Measured:
    plain = dataclasses.replace(settings(Path()), max_seconds=600.0, **changes)
    stop = Fixed("fixed", Limits(plain.requests, plain.max_seconds))
    traffic = Traffic(load or closed_loop(plain), RequestOptions("score", 20.0, None, None), stop)
    events = EventStream(io.StringIO())
    async with InferenceClient(address) as client:
        info = await client.info()
        return await measure(client, traffic, info, plan_with(plain), data(), interrupted, events)


def result_of(found: Measured) -> RunResult:
    return to_result(plan_with(settings(Path()), CONFIG), "now", "", data(), found)


def test_every_cell_is_measured_on_the_same_requests(seeded_model: ModelFolder) -> None:
    """The number of warm-up requests that fit into its time must not matter."""

    async def tokens(warmup_max_seconds: float) -> list[int]:
        async with serving([noop(seeded_model)]) as address:
            found = await measured(
                address,
                asyncio.Event(),
                requests=30,
                warmup_requests=6,
                warmup_max_seconds=warmup_max_seconds,
            )
            in_order = sorted(found.records, key=lambda record: record.index)
            return [record.tokens for record in in_order]

    slow, fast = (asyncio.run(tokens(seconds)) for seconds in (1e-9, 600.0))
    assert len(set(slow)) > 10
    assert slow == fast


@dataclasses.dataclass
class Silent:
    """A load that sends nothing, and counts how often it was driven."""

    name: str = "silent"
    labels: Sequence[str] = ("load",)
    driven: int = 0

    async def drive(self, sender: Sender) -> None:
        self.driven += 1


@dataclasses.dataclass
class Counting(NoopBackend):
    pairs: int = 0

    def infer(self, batch: TokenBatch) -> Inference:
        self.pairs += len(batch)
        return super().infer(batch)


def test_the_warm_up_is_not_part_of_the_load(seeded_model: ModelFolder) -> None:
    load, backend = Silent(), noop_of(Counting, seeded_model)

    async def run() -> Measured:
        async with serving([backend]) as address:
            return await measured(
                address, asyncio.Event(), load, warmup_requests=6, batch=5, concurrency=2
            )

    result = result_of(asyncio.run(run()))
    assert backend.pairs >= 30  # it goes on until the server is steady
    assert backend.pairs % 5 == 0
    assert load.driven == 1
    assert (result.status, result.error) == (Status.FAILED, "the load sent no request")


def test_metrics_are_those_of_the_records(seeded_model: ModelFolder, tmp_path: Path) -> None:
    """Compute the metrics again from the file, with pandas and NumPy."""

    async def run() -> Measured:
        async with serving([noop(seeded_model)]) as address:
            return await measured(address, asyncio.Event(), requests=200, concurrency=3, batch=5)

    found = asyncio.run(run())
    frame = pd.read_parquet(save_records(found.records, tmp_path))
    assert sorted(frame["index"]) == list(range(200))
    span_s = frame.received_s.max() - frame.sent_s.min()
    latency_ms = (frame.received_s - frame.due_s) * 1e3
    overhead_ms = (frame.received_s - frame.sent_s) * 1e3 - frame[
        ["tokenize_ms", "queue_ms", "infer_ms"]
    ].sum(axis=1)
    expected = {
        "requests/ok": 200,
        "throughput/span_pairs_per_s": 1000 / span_s,
        "latency/p95_ms": latency_ms.quantile(0.95),
        "latency/std_ms": latency_ms.std(),
        "stage/overhead_p50_ms": overhead_ms.median(),
        "correlation/tokens": np.corrcoef(frame.tokens, latency_ms)[0, 1],
        "batching/padding_waste": 0,
    }
    assert {name: found.metrics[name] for name in expected} == pytest.approx(expected)
    batches = found.metrics["batching/batches"]
    assert found.metrics["batching/pairs_per_batch"] == pytest.approx(1000 / batches)


def test_a_refused_request_has_the_error_message_of_the_server(seeded_model: ModelFolder) -> None:
    async def run() -> Measured:
        async with serving([noop(seeded_model)]) as address:
            return await measured(address, asyncio.Event(), requests=3, batch=65)

    result = result_of(asyncio.run(run()))
    assert result.status is Status.FAILED
    assert result.error is not None
    assert result.error.startswith("all 3 requests failed, the first with INVALID_ARGUMENT: ")
    assert "the limit is 64" in result.error


def test_records_are_kept_when_the_server_is_lost(seeded_model: ModelFolder) -> None:
    async def run() -> Measured:
        async with serving([noop(seeded_model)]) as address:
            task = asyncio.create_task(measured(address, asyncio.Event(), requests=10**9))
            async with InferenceClient(address) as client:
                while (await client.metrics()).requests_ok < 20:
                    await asyncio.sleep(0.01)
        return await task

    found = asyncio.run(run())
    assert sum(record.ok for record in found.records) >= 20
    result = result_of(found)
    assert result.status is Status.FAILED
    assert result.error is not None
    assert result.error.startswith("the connection to the server was lost (UNAVAILABLE) after ")
    assert result.metrics["throughput/pairs_per_s"] > 0
