"""The harness's audit: a real event loop that is blocked, real processes that use the CPU."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from crossbench.measure.audit import THRESHOLDS, client_limit, disturbance, flags_of
from crossbench.measure.cpu_load import CpuLoad, CpuUse
from crossbench.measure.event_loop import LoopMonitor, LoopUse
from crossbench.measure.frequency import FrequencyRange
from crossbench.measure.harness import HarnessMeter
from crossbench.measure.pauses import Pauses
from crossbench.results import Flag
from tests.helpers.records import record

SPIN = "while True: pass"


@pytest.fixture
def idle_process() -> Iterator[int]:
    """A process of which the processes of this test are no part."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process.pid
        process.kill()


def spin(seconds: float) -> None:
    end_s = time.perf_counter() + seconds
    while time.perf_counter() < end_s:
        pass


def use_while(load: CpuLoad, seconds: float) -> CpuUse:
    first = load.read()
    spin(seconds)
    use = CpuUse.between(first, load.read(), load.cores)
    assert use is not None
    return use


def test_a_blocked_loop_is_late_for_every_moment_in_which_it_was_blocked() -> None:
    async def watched(block_s: float) -> LoopUse:
        monitor = LoopMonitor()
        async with monitor:
            first = monitor.mark()
            await asyncio.sleep(0.2)
            time.sleep(block_s)  # noqa: ASYNC251 (the fault that is looked for)
            await asyncio.sleep(0.2)
            return monitor.use(first, monitor.mark())

    blocked = asyncio.run(watched(0.5))
    # A request that was due at a random moment of the block waited for 250 ms on average
    assert 400 < blocked.lag_p99_ms < 700
    assert blocked.cpu_share < 0.5  # sleeping is not work
    assert client_limit(blocked, 5.0, disturbed=False) is not None
    assert client_limit(blocked, 5.0, disturbed=True) is None  # others may have kept it waiting
    assert client_limit(blocked, 2000.0, disturbed=False) is None


def test_what_this_process_uses_counts_as_others_for_another_process(idle_process: int) -> None:
    others = CpuLoad(idle_process)
    ours = CpuLoad(psutil.Process().pid)
    first = ours.read()
    use = use_while(others, 0.7)
    assert use.ours < 0.1
    assert use.others > 0.3  # on a busy machine, this process gets only a part of a core
    own = CpuUse.between(first, ours.read(), ours.cores)
    assert own is not None
    assert own.ours > 0.3
    assert own.others + own.ours + own.idle <= own.cores + 0.3


def test_children_belong_to_the_run_also_after_their_end() -> None:
    load = CpuLoad(psutil.Process().pid)
    first = load.read()
    with subprocess.Popen([sys.executable, "-c", SPIN]) as child:
        assert load.find_processes()
        assert not load.find_processes()
        time.sleep(0.7)
        running = CpuUse.between(first, load.read(), load.cores)
        child.kill()
        child.wait()
    ended = CpuUse.between(first, load.read(), load.cores)
    assert running is not None
    assert ended is not None
    assert running.ours > 0.2
    assert ended.ours * ended.period_s >= running.ours * running.period_s - 0.02


def use(others: float, idle: float, cores: int = 2, steal: float = 0.0) -> CpuUse:
    return CpuUse(1.0, cores, max(0.0, cores - others - idle), others, idle, steal, 0.5)


@pytest.mark.parametrize(
    ("seconds", "reason"),
    [
        ([use(1.2, 0.0)] * 4, "other processes used 1.2 of 2 CPU cores"),
        ([use(0.0, 0.9)] * 4, None),
        ([use(0.05, 0.0)] * 4, None),  # ours use both cores, and others hardly any
        ([use(0.8, 1.0)] * 4, None),  # others use what is idle
        ([use(2.0, 60.0, cores=64)] * 4, None),
        ([use(34.0, 26.0, cores=64)] * 4, None),  # ours find an idle core
        ([use(2.0, 0.0, cores=64)] * 4, "other processes used 2.0 of 64 CPU cores"),
        # On average, more is idle than others use; in the second in which they work, nothing is
        (
            [use(1.5, 0.0), *[use(0.0, 1.5)] * 3],
            "other processes used 1.5 of 2 CPU cores for 1 of 4 seconds",
        ),
    ],
)
def test_others_disturb_if_they_take_what_is_not_idle(
    seconds: Sequence[CpuUse], reason: str | None
) -> None:
    others, idle = (sum(getattr(u, k) for u in seconds) / len(seconds) for k in ("others", "idle"))
    assert disturbance(seconds, use(others, idle, seconds[0].cores)) == reason


def test_steal_from_an_idle_machine_is_no_disturbance() -> None:
    idle = CpuUse(4.0, 2, 0.03, 0.0, 1.9, 0.7, 0.0)
    assert disturbance([idle], idle) is None
    busy = CpuUse(4.0, 2, 1.2, 0.0, 0.3, 0.25, 0.0)
    assert "hypervisor gave 25 %" in (disturbance([busy], busy) or "")


def test_less_than_a_second_is_not_judged() -> None:
    short = CpuUse(0.05, 2, 0.5, 1.5, 0.0, 0.5, 0.5)
    assert disturbance([short], short) is None


def test_a_hypervisor_and_a_busy_loop_are_reasons() -> None:
    stolen, quiet, busy = use(0, 0.5, steal=0.25), LoopUse(0.3, 2.0), LoopUse(0.97, 2.0)
    assert flags_of([stolen], stolen, quiet, 5.0) == {
        Flag.DISTURBED: "the hypervisor gave 25 % of the CPU time to others."
    }
    assert flags_of([], None, busy, None) == {
        Flag.CLIENT_BOUND: "the client's event loop was busy for 97 % of the time."
    }
    assert flags_of([use(0, 1)], use(0, 1), quiet, 1.0) == {}
    assert THRESHOLDS.taken(2) == pytest.approx(0.1)


def test_frequencies_and_throttling_where_the_system_has_them(tmp_path: Path) -> None:
    def system(core: int, khz: int, throttled: int) -> None:
        for name, number in (
            ("cpufreq/scaling_cur_freq", khz),
            ("thermal_throttle/core_throttle_count", throttled),
        ):
            path = tmp_path / f"cpu{core}" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{number}\n", "ascii")

    system(0, 2_000_000, 5)
    system(1, 3_500_000, 0)
    found = FrequencyRange(tmp_path)
    found.read()
    system(0, 1_200_000, 8)
    found.read()
    assert (found.min_mhz, found.max_mhz) == (1200.0, 3500.0)
    assert found.throttle_events() == 3
    absent = FrequencyRange(tmp_path / "none")
    absent.read()
    assert (absent.min_mhz, absent.max_mhz, absent.throttle_events()) == (None, None, None)


def test_garbage_collections_are_timed() -> None:
    cycles = [[index] for index in range(200_000)]
    with Pauses() as pauses:
        started_s = time.perf_counter()
        gc.collect()
        took_s = time.perf_counter() - started_s
    gc.collect()  # no longer counted
    assert 0.5 * took_s < pauses.gc_s <= took_s
    assert pauses.major_page_faults >= 0
    assert len(cycles) == 200_000


def test_the_meter_tells_while_it_happens_and_at_the_end(idle_process: int) -> None:
    """All cores are busy with processes that are no part of the run, this one among them."""
    told: list[dict[str, str]] = []
    meter = HarnessMeter(idle_process, lambda flags: told.append(dict(flags)))

    async def busy_until_told() -> None:
        async with meter.watch([record(0.0, 0.005)]):
            end_s = time.perf_counter() + 20
            while not told and time.perf_counter() < end_s:
                spin(0.03)
                await asyncio.sleep(0)

    spinning = [
        subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range((os.cpu_count() or 1) - 1)
    ]
    try:
        asyncio.run(busy_until_told())
    finally:
        for process in spinning:
            process.kill()
            process.wait()
    assert "other processes used" in told[0][Flag.DISTURBED]
    assert "other processes used" in meter.flags()[Flag.DISTURBED]
    metrics = meter.metrics()
    assert metrics["harness/loop_lag_p99_ms"] > 10
    assert metrics["harness/client_cpu_share"] > 0.1  # other tests may take cores, too
    assert metrics["harness/cores_used_by_others"] > 0.8 * (os.cpu_count() or 1)
