"""Probes of this process and this machine."""

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import numpy as np
import psutil
import pytest

from crossbench.measure.memory import KernelPeak, PeakRss, SampledPeak, peak_rss, rss_mb
from crossbench.measure.probes import CpuMeter, environment, memory_total_mb, usable_cores
from crossbench.models.folder import ModelFolder
from crossbench.serving.client import InferenceClient
from crossbench.serving.telemetry import Telemetry
from tests.helpers.places import REPO
from tests.helpers.serving import noop, serving


def samplers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "peak-rss"]


@pytest.mark.parametrize("make", [peak_rss, SampledPeak])
def test_resident_set_follows_an_allocation_and_the_peak_resets(
    make: Callable[[], PeakRss],
) -> None:
    peak = make()
    before = rss_mb()
    block = np.ones(100 * 2**17)  # 105 MB, every page written
    assert rss_mb() - before == pytest.approx(block.nbytes / 1e6, abs=15)
    del block
    peak.start()
    try:
        assert peak.peak_mb() < before + 60
        block = np.ones(60 * 2**17)
        time.sleep(0.2)
        del block
        assert peak.peak_mb() > before + 50
    finally:
        peak.stop()


def test_linux_records_the_peak_itself() -> None:
    assert isinstance(peak_rss(), KernelPeak if sys.platform == "linux" else SampledPeak)


def test_resets_keep_a_single_sampler_and_stop_ends_it() -> None:
    telemetry = Telemetry(list, SampledPeak())
    for _ in range(3):
        telemetry.reset()
    assert len(samplers()) == 1
    assert telemetry.snapshot().rss_peak_mb > 0
    telemetry.usage.close()
    assert samplers() == []


def test_a_server_that_ends_stops_its_sampler(seeded_model: ModelFolder) -> None:
    async def serve_and_reset() -> int:
        async with (
            serving([noop(seeded_model)], own_peak=SampledPeak()) as address,
            InferenceClient(address) as client,
        ):
            for _ in range(3):
                await client.reset_metrics()
            return len(samplers())

    assert asyncio.run(serve_and_reset()) == 1
    assert samplers() == []


def test_cpu_meter_distinguishes_busy_and_idle() -> None:
    meter = CpuMeter()
    time.sleep(0.2)
    assert meter.cores_used() < 0.5
    meter.start()
    busy_until = time.process_time() + 0.3
    while time.process_time() < busy_until:
        pass
    assert 0.05 < meter.cores_used() <= usable_cores() + 0.1


def test_limits_do_not_exceed_the_machine() -> None:
    assert 1 <= usable_cores() <= (psutil.cpu_count() or 1)
    assert 0 < memory_total_mb() <= psutil.virtual_memory().total / 1e6


def test_environment_describes_this_process_as_json() -> None:
    found = json.loads(json.dumps(environment()))
    assert found["python"] == sys.version.split()[0]
    assert found["versions"]["numpy"] == np.__version__
    assert found["cpu"]
    assert found["cores_usable"] == usable_cores()
    if (REPO / ".git").exists():
        head = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=REPO,
            capture_output=True,
            text=True,
            check=False,
        )
        assert found["git_commit"] == (head.stdout.strip() or None)


def test_probes_import_nothing_heavy() -> None:
    code = (
        "import sys; from crossbench.measure.probes import environment; environment();"
        "print([m for m in ('torch', 'mlflow', 'matplotlib', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
