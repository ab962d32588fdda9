"""Loads and the sender with a real server: due times, stopping, and names of cells."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from crossbench.backends.noop import NoopBackend
from crossbench.errors import ConfigError
from crossbench.load.closed import keep_in_flight
from crossbench.load.labels import load_description, load_labels
from crossbench.load.requests import RequestOptions, Requests
from crossbench.load.sender import UNREACHABLE, Sender
from crossbench.load.stop import Limits, LimitWatch
from crossbench.models.folder import ModelFolder
from crossbench.report.axes import full_label, label, varying
from crossbench.runner.checks import check_config
from crossbench.serving.client import InferenceClient
from crossbench.settings.cell_config import CellConfig
from crossbench.types import Inference, QueryPassages, RequestRecord, TokenBatch
from tests.helpers.plans import config_of, with_nodes
from tests.helpers.serving import noop, noop_of, serving, until

LISTS = (
    QueryPassages("1", "which river", ("a", "b", "c"), ("one", "two", "three")),
    QueryPassages("2", "which sea", ("d", "e"), ("four", "five")),
)
SLOW_S = 0.2


@dataclass
class Slow(NoopBackend):
    def infer(self, batch: TokenBatch) -> Inference:
        time.sleep(SLOW_S)
        return super().infer(batch)


def make_sender(
    client: InferenceClient,
    limits: Limits,
    interrupted: asyncio.Event | None = None,
    on_record: Callable[[RequestRecord], None] = lambda record: None,
) -> Sender:
    interrupted = interrupted or asyncio.Event()
    watch = LimitWatch(limits)
    return Sender(client, Requests(LISTS, 1), 20.0, watch, interrupted, on_record=on_record)


async def send_at(sender: Sender, times_s: list[float]) -> None:
    """An open loop, which sends requests at fixed times without waiting for replies."""
    async with asyncio.TaskGroup() as in_flight:
        for due_s in times_s:
            if not await sender.wait_until(due_s):
                break
            in_flight.create_task(sender.send(due_s))


async def drive_slow(
    model: ModelFolder, drive: Callable[[Sender], Any], limits: Limits
) -> list[RequestRecord]:
    """Run `drive` with a server that takes SLOW_S per request and handles one at a time."""
    async with (
        serving([noop_of(Slow, model)]) as address,
        InferenceClient(address) as client,
    ):
        await client.ready(10)
        sender = make_sender(client, limits)
        await drive(sender)
        return sorted(sender.records, key=lambda record: record.index)


def test_latency_counts_from_when_a_request_was_due(seeded_model: ModelFolder) -> None:
    """Four requests at once, one of which is sent late. The last one waits for three others."""

    async def drive(sender: Sender) -> None:
        async with asyncio.TaskGroup() as in_flight:
            for due_s in (0.0, 0.0, 0.0):
                in_flight.create_task(sender.send(due_s))
            await asyncio.sleep(0.1)
            in_flight.create_task(sender.send(0.0))

    records = asyncio.run(drive_slow(seeded_model, drive, Limits(100, 60)))
    assert [record.due_s for record in records] == [0.0] * 4
    late = records[3]
    assert late.sent_s >= 0.1
    assert late.latency_ms == pytest.approx(late.service_ms + late.sent_s * 1e3)
    assert sum(record.sent_s < 0.1 for record in records) == 3  # all were in flight together


def test_an_open_loop_does_not_wait_for_replies(seeded_model: ModelFolder) -> None:
    times_s = [0.0, 0.02, 0.04, 0.06]
    records = asyncio.run(
        drive_slow(seeded_model, lambda sender: send_at(sender, times_s), Limits(100, 60))
    )
    assert [record.due_s for record in records] == times_s
    assert all(record.sent_s >= record.due_s for record in records)
    first_reply_s = min(record.received_s for record in records)
    assert records[-1].sent_s < first_reply_s
    assert records[-1].latency_ms >= SLOW_S * 1e3


@pytest.mark.parametrize(
    ("limits", "sent"),
    [
        (Limits(2, 60), 2),
        (Limits(100, 0.05), 3),  # the requests due in the first 50 ms
        (Limits(100, 1e-9), 1),  # the first request may always be sent
    ],
)
def test_an_open_loop_stops(limits: Limits, sent: int, seeded_model: ModelFolder) -> None:
    times_s = [0.0, 0.02, 0.04, 30.0, 31.0]
    started_s = time.monotonic()
    records = asyncio.run(drive_slow(seeded_model, lambda sender: send_at(sender, times_s), limits))
    assert len(records) == sent
    assert (
        time.monotonic() - started_s < 20
    )  # the load does not wait for requests that it may not send


def test_an_interruption_ends_a_wait(seeded_model: ModelFolder) -> None:
    async def run() -> list[RequestRecord]:
        interrupted = asyncio.Event()
        async with (
            serving([noop(seeded_model)]) as address,
            InferenceClient(address) as client,
        ):
            sender = make_sender(client, Limits(100, 600), interrupted)
            driving = asyncio.create_task(send_at(sender, [0.0, 500.0]))
            await until(lambda: sender.records)
            interrupted.set()
            await asyncio.wait_for(driving, 20)
            return sender.records

    assert len(asyncio.run(run())) == 1


@pytest.mark.parametrize("loop", ["open", "closed"])
def test_an_unreachable_server_ends_every_load(loop: str) -> None:
    async def run() -> Sender:
        async with InferenceClient("127.0.0.1:9") as client:  # no server listens on this port
            sender = make_sender(client, Limits(10**9, 600))
            if loop == "open":
                await send_at(sender, [number / 5 for number in range(1000)])
            else:
                await keep_in_flight(sender, 2)
            return sender

    sender = asyncio.run(run())
    assert {record.status for record in sender.records} == {UNREACHABLE}
    assert 3 < sender.records[-1].received_s < 30


def test_a_request_of_another_size_continues_after_the_last_one() -> None:
    requests = Requests(LISTS, 2)
    whole, spanning, rest = requests.take(), requests.take(3), requests.take(1)
    assert (whole.query, list(whole.passages)) == ("which river", ["one", "two"])
    assert [(pair.query, pair.passage) for pair in spanning.pairs] == [
        ("which river", "three"), ("which sea", "four"), ("which sea", "five"),
    ]  # fmt: skip
    assert list(rest.passages) == ["one"]


OPEN = {"name": "constant", "labels": ["load", "load.rate"], "rate": 5.0}


def test_a_cell_is_named_after_its_own_load() -> None:
    closed = config_of("backend=noop", "concurrency=4")
    open_loop = with_nodes(closed, load=OPEN)
    assert label(closed) == full_label(closed) == "noop fp32 batch=32 concurrency=4"
    assert label(open_loop) == full_label(open_loop) == "noop fp32 batch=32 constant rate=5.0"
    assert load_description(open_loop) == "batch=32 constant rate=5.0"
    assert varying([closed, open_loop]) == ["load"]
    faster = with_nodes(open_loop, load={**OPEN, "rate": 9.0})
    assert varying([open_loop, faster]) == ["load.rate"]
    assert label(faster, ["load.rate"]) == "rate=9.0"


def test_names_of_old_results_without_load_labels() -> None:
    """Old results used the closed loop, and are grouped with new results of it."""
    today = config_of("backend=noop")
    before = {key: value for key, value in today.section("load").items() if key != "labels"}
    old = with_nodes(today, load=before)
    assert old.cell_id == today.cell_id
    assert full_label(old) == full_label(today) == "noop fp32 batch=32 concurrency=1"
    assert varying([old, today]) == []
    # The form in which MLflow stores lists
    flat = {"backend": "noop", "load": "constant", "load.labels": '["load"]'}
    assert load_labels(CellConfig(flat)) == ("load",)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("load.timeout_s=0", "load.timeout_s must be a positive number of seconds"),
        ("load.timeout_s=soon", "load.timeout_s must be a number, got 'soon'"),
        ("load.task=rank", "load.task must be one of score, embed, got 'rank'"),
        ("load.models=tall", "load.models must be null, all or a list of names, got 'tall'"),
        ("load.labels=concurrency", "load.labels must be a list of texts, got 'concurrency'"),
        ("+load.rate=3", "does not take"),
    ],
)
def test_an_invalid_load_is_rejected_before_a_model_is_loaded(override: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_config(config_of("backend=noop", override))


def test_the_model_order_uses_the_servers_models() -> None:
    served = ["large", "small"]
    assert RequestOptions("score", 1.0, None, None).model_order(served) == []
    assert RequestOptions("score", 1.0, ["small", None], None).model_order(served) == [
        "small",
        "large",
    ]
