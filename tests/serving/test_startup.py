"""Memory while a server loads and converts its model, of all its processes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from crossbench.backends.artifacts import Artifact
from crossbench.backends.noop import NoopBackend
from crossbench.measure import catalogue
from crossbench.runner.compose import build_server
from crossbench.runner.models import fetch_model
from crossbench.runner.result import server_metrics
from crossbench.serving import inference_pb2 as pb
from crossbench.settings.plan import make_plan
from crossbench.types import Task
from tests.helpers.plans import config_of, with_nodes

LOADED_MB = 150.0
CONVERTED_MB = 300.0


def occupy(size_mb: float) -> None:
    """Write to this much memory, and free it."""
    np.ones(round(size_mb * 1e6 / 8))


@dataclass
class BulkyBackend(NoopBackend):
    """Needs memory while it loads that it frees afterwards."""

    def load_model(self) -> None:
        occupy(LOADED_MB)


@dataclass
class ConvertedBackend(BulkyBackend):
    """Converts its model in memory that it frees afterwards."""

    def artifact(self) -> Artifact:
        return Artifact(self.deployment.cache_dir / "converted" / "model", convert)

    def load_model(self) -> None:
        self.artifact().fetch()
        super().load_model()


def convert(folder: Path) -> None:
    occupy(CONVERTED_MB)
    (folder / "graph").write_text("the graph", "utf-8")


def startup(backend: type[NoopBackend], cache_dir: Path, *overrides: str) -> pb.Startup:
    """Start a server with this backend, and return the memory that its start took."""
    config = config_of("backend=noop", *overrides, f"cache_dir={cache_dir}")
    node = {**config.section("backend"), "_target_": f"{__name__}.{backend.__name__}"}
    plan = make_plan(with_nodes(config, backend=node))
    server = build_server(plan, fetch_model(plan))
    asyncio.run(server.stop())
    return server.info.startup


@pytest.mark.parametrize(
    ("overrides", "loaded_at_once"),
    [(["pool.workers=1"], 1), (["pool=processes", "pool.workers=2"], 2)],
)
def test_the_peak_of_loading_counts_every_process(
    overrides: list[str], loaded_at_once: int, cache_dir: Path
) -> None:
    found = startup(BulkyBackend, cache_dir, *overrides)
    assert found.rss_load_peak_mb >= found.rss_after_load_mb >= found.rss_before_load_mb
    assert found.rss_after_load_mb + LOADED_MB * loaded_at_once == pytest.approx(
        found.rss_load_peak_mb, abs=30 * loaded_at_once
    )


def test_the_peak_of_loading_counts_a_conversion_once(cache_dir: Path) -> None:
    converting, cached = (startup(ConvertedBackend, cache_dir, "pool.workers=1") for _ in range(2))
    own_mb = converting.rss_before_load_mb
    assert converting.rss_load_peak_mb > own_mb + CONVERTED_MB
    assert cached.rss_load_peak_mb == pytest.approx(own_mb + LOADED_MB, abs=30)


def test_a_server_that_does_not_report_the_peak_of_loading() -> None:
    info = pb.ServerInfo(models=[pb.ModelInfo()], startup=pb.Startup(rss_after_load_mb=5.0))
    metrics = server_metrics(info, pb.Metrics(), pb.Metrics(), 1.0, Task.SCORE)
    assert metrics["memory/rss_after_load_mb"] == 5.0
    assert catalogue.RSS_LOAD_PEAK_MB.name not in metrics
