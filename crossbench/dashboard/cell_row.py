"""One cell of the board: its settings, how far it is, and its figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from crossbench.events import MEASURING, ProgressMade
from crossbench.measure import catalogue
from crossbench.measure.metric import Metric
from crossbench.serving import inference_pb2 as pb
from crossbench.types import Task

RUNNING, INTERRUPTED = "running", "interrupted"


@dataclass(slots=True)
class CellRow:
    """One cell of the sweep.

    `figures` has metrics by their names in the catalogue: those of the measurement so far while the
    cell runs, then those of its result. `facts` are those of its server, empty before it answers.
    `status` is `running` or a `results.Status`; `interrupted`: a stop signal ended it. `machine` is
    the one that measures it, None if it is that of the parent process.
    """

    number: int  # counted from 0
    label: str
    settings: Mapping[str, str]
    started_s: float  # Unix
    machine: str | None = None
    ended_s: float | None = None
    status: str = RUNNING
    error: str | None = None
    interrupted: bool = False
    stage: str = "starting"
    flags: Mapping[str, str] = field(default_factory=dict)  # of the last seconds
    progress: ProgressMade | None = None
    figures: dict[str, float] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def unit(self) -> str:
        """The unit of work: `texts` if the cell embeds, else `pairs`."""
        return unit_of(self.settings)

    @property
    def rate(self) -> Metric:
        """The cell's metric of throughput."""
        return catalogue.throughput(self.unit)

    @property
    def is_running(self) -> bool:
        return self.ended_s is None

    @property
    def outcome(self) -> str:
        """`running`, how it ended, or `interrupted`."""
        return INTERRUPTED if self.interrupted else self.status

    @property
    def share(self) -> float:
        """The completed share of its measurement, 0 to 1."""
        return self.progress.share if self.progress else 0.0

    def take_server_figures(self, metrics: pb.Metrics, cpu_s: float) -> None:
        """Add what the server knows of the measurement so far; it counts from its start.

        `cpu_s` is the server's CPU time when the measurement began. `runner.result.server_metrics`
        has the same figures at the end.
        """
        if self.stage != MEASURING or not self.figures:  # the first figures come after a second
            return
        found = {
            catalogue.RSS_PEAK_MB.name: metrics.rss_peak_mb,
            catalogue.CORES_USED.name: (metrics.cpu_s - cpu_s) / metrics.since_reset_s,
        }
        if metrics.batches:
            found[catalogue.per_batch(self.unit).name] = metrics.batch_pairs / metrics.batches
        if metrics.tokens_computed:
            waste = 1.0 - metrics.batch_tokens / metrics.tokens_computed
            found[catalogue.PADDING_WASTE.name] = waste
        if metrics.HasField("device_memory_peak_mb"):
            found[catalogue.DEVICE_PEAK_MB.name] = metrics.device_memory_peak_mb
        self.figures |= found


def unit_of(settings: Mapping[str, str]) -> str:
    """Return the unit of work under `settings`: `texts` if it embeds, else `pairs`."""
    embeds = settings.get("load.task") == Task.EMBED
    return (Task.EMBED if embeds else Task.SCORE).unit
