"""Events between processes: all kinds survive encoding, and a bad line affects no other line."""

from __future__ import annotations

import dataclasses
import io
import json
import subprocess
import sys
import types
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossbench import events
from crossbench.dashboard.journal import FileJournal, JournalReader
from crossbench.dashboard.process import JOURNAL_FILE
from crossbench.events import (
    CellEnded,
    CellStarted,
    Event,
    MeasuredSoFar,
    ProgressMade,
    Recorded,
    RunEnded,
    ServerListens,
    ServerStops,
    StageStarted,
    WindowMeasured,
    decode,
    encode,
)
from crossbench.load.stop import Limits, LimitWatch
from crossbench.measure import catalogue
from crossbench.models.folder import ModelFolder
from crossbench.runner.event_stream import EventStream, ProgressReporter
from crossbench.sweeps.cell import Follower
from crossbench.sweeps.watchdog import TimeLimits, Watchdog
from crossbench.types import RequestRecord

KINDS: tuple[type[Event], ...] = get_args(Event)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
SIMPLE: dict[Any, st.SearchStrategy[Any]] = {
    str: st.text(), int: st.integers(), float: NUMBERS, bool: st.booleans(),
    type(None): st.none(),
}  # fmt: skip


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    """Values of an event's field by its type."""
    if get_origin(hint) is types.UnionType:
        return st.one_of(*map(values_of, get_args(hint)))
    if get_origin(hint) is Mapping:
        return st.dictionaries(*map(values_of, get_args(hint)))
    return SIMPLE[hint]


def events_of(kind: type[Event]) -> st.SearchStrategy[Event]:
    return st.builds(kind, **{name: values_of(hint) for name, hint in get_type_hints(kind).items()})


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_makes_the_round_trip(kind: type[Event]) -> None:
    @settings(deadline=None)
    @given(events_of(kind), NUMBERS, st.none() | st.integers())
    def round_trip(event: Event, time_s: float, cell: int | None) -> None:
        line = encode(event, time_s, cell)
        assert line.isascii()
        assert line.splitlines(keepends=True) == [line]
        assert decode(line) == decode(line.encode()) == Recorded(event, time_s, cell)

    round_trip()


def test_every_event_class_is_a_kind() -> None:
    classes = {item for item in vars(events).values() if isinstance(item, type)}
    defined = {item for item in classes if item.__module__ == events.__name__}
    assert defined - {Recorded} == set(KINDS)
    for kind in KINDS:
        assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined]


ENDED = CellEnded("failed", None, False, {"latency/p50_ms": 2.5})


def changed(**values: object) -> str:
    return json.dumps({**json.loads(encode(ENDED, 1.0, 2)), **values})


def without(key: str) -> str:
    values = json.loads(encode(ENDED, 1.0, 2))
    del values[key]
    return json.dumps(values)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "\n",
        "null",
        "[]",
        "{}",
        "[" * 100_000,
        b"\xff\xfe\x00",
        changed(event="OfTheFuture"),
        changed(event=["CellEnded"]),
        changed(event="Recorded"),
        changed(status=None),
        changed(status=3),
        changed(error=3),
        changed(interrupted=0),
        changed(interrupted="no"),
        changed(metrics=None),
        changed(metrics=[]),
        changed(metrics={"latency/p50_ms": "2.5"}),
        changed(metrics={"latency/p50_ms": True}),
        changed(metrics={"latency/p50_ms": None}),
        changed(metrics={"latency/p50_ms": 10**400}),
        changed(metrics={"latency/p50_ms": float("nan")}),
        changed(time_s=float("inf")),
        changed(time_s="now"),
        changed(cell=1.5),
        changed(cell=True),
        without("event"),
        without("time_s"),
        without("status"),
        without("metrics"),
    ],
)
def test_a_line_without_an_event_that_is_known_is_none(line: str | bytes) -> None:
    assert decode(line) is None


def test_a_line_that_is_cut_off_is_none() -> None:
    line = encode(WindowMeasured(3, {"UNAVAILABLE": 1}, 30.0, 5.0, 6.0, None), 1.5, 2).rstrip()
    assert decode(line) is not None
    assert [decode(line[:end]) for end in range(len(line))] == [None] * len(line)


def test_other_versions_may_add_values_and_omit_optional_ones() -> None:
    assert decode(changed(added={"in": "the future"})) == Recorded(ENDED, 1.0, 2)
    assert decode(without("error")) == Recorded(ENDED, 1.0, 2)
    assert decode(without("cell")) == Recorded(ENDED, 1.0, None)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=3,
)


@settings(deadline=None)
@given(st.text() | st.binary())
def test_no_line_raises(line: str | bytes) -> None:
    assert decode(line) is None


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(KINDS), st.data(), st.floats() | st.integers() | JSON, st.integers() | JSON)
def test_no_value_raises(kind: type[Event], data: st.DataObject, time_s: Any, cell: Any) -> None:
    names = [field.name for field in dataclasses.fields(kind)]
    values = {name: data.draw(JSON, label=name) for name in names}
    line = {"time_s": time_s, "cell": cell, "event": kind.__name__, **values}
    recorded = decode(json.dumps(line))
    if recorded is not None:
        assert decode(encode(recorded.event, recorded.time_s, recorded.cell)) == recorded


class RecordingProgress:
    """Records the calls that a progress bar receives."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.progress: list[ProgressMade] = []

    def stage(self, stage: str) -> None:
        self.stages.append(stage)

    def advance(self, made: ProgressMade) -> None:
        self.progress.append(made)


def test_the_parent_survives_the_truncated_line_of_a_killed_child(tmp_path: Path) -> None:
    """A process writes valid lines, an unknown event, bytes that are not text, and half a line."""
    half = encode(StageStarted("measuring"), 3.0)[:30]
    progress = ProgressMade(done=3, share=0.25, pairs_per_s=9.0, p50_ms=1.5)
    code = (
        "import sys\n"
        f"sys.stdout.write({encode(StageStarted('warming up'), 1.0)!r})\n"
        f"sys.stdout.write({encode(progress, 2.0)!r})\n"
        'sys.stdout.write(\'{"time_s": 2, "event": "OfTheFuture"}\\n\')\n'
        "sys.stdout.flush()\n"
        "sys.stdout.buffer.write(b'\\xff\\n')\n"
        f"sys.stdout.write({half!r})\n"
    )
    heard, path = RecordingProgress(), tmp_path / "events.jsonl"
    with (
        subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, encoding="utf-8", errors="replace"
        ) as child,
        closing(Watchdog(child, TimeLimits(60.0, {}))) as watchdog,
    ):
        Follower(tmp_path, heard, FileJournal(path, cell=4), watchdog).follow(child)
    assert (heard.stages, heard.progress) == (["warming up"], [progress])
    assert list(JournalReader(path).new()) == [
        Recorded(StageStarted("warming up"), 1.0, 4),
        Recorded(progress, 2.0, 4),
    ]


def record(index: int, status: str = "OK") -> RequestRecord:
    """Return a request with 3 pairs that took 5 ms."""
    return RequestRecord(index, 0.0, 0.0, 0.005, 3, 10, 0, 0.0, 0.0, 0.0, status)


def so_far(ok: int, failed: int) -> dict[str, float]:
    """The metrics of so many records, all sent and answered at the same times."""
    percentiles = {catalogue.latency(level).name: 5.0 for level in (50, 95, 99)}
    return {
        catalogue.REQUESTS_OK.name: ok,
        catalogue.REQUESTS_FAILED.name: failed,
        **percentiles,
        catalogue.PAIRS_PER_S.name: 3 * ok / 0.005,
    }


def test_a_measurement_reports_its_windows_and_its_progress() -> None:
    now_s = 100.0
    stream, watch = io.StringIO(), LimitWatch(Limits(requests=8, max_seconds=10.0))
    reporter = ProgressReporter(EventStream(stream), watch, "pairs", lambda: now_s)
    for index, status in enumerate(("OK", "UNAVAILABLE", "OK", "OK")):
        now_s += 0.25
        reporter(record(index, status))
    for index in (4, 5):
        now_s += 0.75
        reporter(record(index, "INTERNAL"))
    sent = [decode(line) for line in stream.getvalue().splitlines()]
    assert [recorded.event for recorded in sent if recorded] == [
        ProgressMade(done=2, share=0.25, pairs_per_s=6.0, p50_ms=5.0),
        MeasuredSoFar(so_far(ok=3, failed=1)),
        WindowMeasured(3, {"UNAVAILABLE": 1}, 9.0, 5.0, 5.0, 5.0),
        ProgressMade(done=4, share=0.5, pairs_per_s=9.0, p50_ms=5.0),
        ProgressMade(done=5, share=0.625, pairs_per_s=5.143, p50_ms=5.0),
        MeasuredSoFar(so_far(ok=3, failed=3)),
        WindowMeasured(0, {"INTERNAL": 2}, 0.0, None, None, None),
        ProgressMade(done=6, share=0.75, pairs_per_s=3.6, p50_ms=5.0),
    ]


def test_the_journal_records_the_events_of_a_cell(
    tmp_path: Path, seeded_model: ModelFolder
) -> None:
    command: Sequence[str] = [
        sys.executable, "-m", "crossbench", "backend=noop", "batch=4", "max_seconds=2",
        "requests=1000000",
        "warmup_requests=1", "warmup_max_seconds=0.2", "stop=fixed", "dataset.queries=4",
        "dataset.passages_per_query=40", "tracker=none", "dashboard.port=0",
        "study=https://me:secret@host/x", f"cache_dir={seeded_model.path.parent}",
        f"outputs_dir={tmp_path}",
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=240)
    (path,) = tmp_path.glob(f"*/{JOURNAL_FILE}")
    lines = path.read_text("utf-8").splitlines()
    recorded = [found for found in map(decode, lines) if found is not None]
    assert len(recorded) == len(lines)
    assert [found.time_s for found in recorded] == sorted(found.time_s for found in recorded)
    assert [found.cell for found in recorded] == [0] * (len(lines) - 1) + [None]
    happened = [found.event for found in recorded]
    stages = [event.stage for event in happened if isinstance(event, StageStarted)]
    assert stages[-2:] == ["warming up", "measuring"]
    course = [type(event) for event in happened if not isinstance(event, StageStarted)]
    seen_by_client = {ProgressMade, WindowMeasured, MeasuredSoFar}
    assert set(course[2:-3]) == seen_by_client
    assert [kind for kind in course if kind not in seen_by_client] == [
        CellStarted, ServerListens, ServerStops, CellEnded, RunEnded,
    ]  # fmt: skip
    started, ended = happened[0], happened[-2]
    assert isinstance(started, CellStarted)
    assert (started.config["batch"], started.config["study"]) == ("4", "https://***@host/x")
    assert isinstance(ended, CellEnded)
    assert ended.status == "finished"
    assert ended.metrics["throughput/pairs_per_s"] > 0
    shares = [event.share for event in happened if isinstance(event, ProgressMade)]
    assert shares == sorted(shares)
    assert 0.4 < shares[-1] <= 1.0


def test_events_import_no_heavy_library() -> None:
    code = "import sys, crossbench.events; print(sorted({'numpy', 'torch'} & {*sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
