"""A cell from its start to its end, as the terminal, the live page and MLflow know it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.text import Text

from crossbench.dashboard.journal import Journal
from crossbench.events import CellEnded, CellStarted
from crossbench.report.axes import label as varying_label
from crossbench.report.terminal import cell_line
from crossbench.results import Failure, RunResult, Status
from crossbench.settings.cell_config import CellConfig
from crossbench.settings.sweep_state import SweepState
from crossbench.sweeps.closing import MeasuredCell, closing
from crossbench.sweeps.folder import place_of
from crossbench.sweeps.progress import time_left_s
from crossbench.sweeps.services import (
    Tracking,
    console,
    screenshot_dashboard,
    sweep_journal,
)
from crossbench.system.command import os_error_message
from crossbench.tracking.protocol import CellRef
from crossbench.wording import duration


@dataclass(frozen=True, slots=True)
class OpenCell:
    """A cell that is being measured; make it with `start`.

    `shown` is its number and its name, `home` the folder of the run.
    """

    config: CellConfig
    home: Path
    state: SweepState
    number: int
    shown: str
    measured: MeasuredCell
    journal: Journal
    tracking: Tracking

    @classmethod
    def start(
        cls,
        config: CellConfig,
        folder: Path,
        home: Path,
        state: SweepState,
        number: int,
        tracking: Tracking,
        machine: str | None = None,
    ) -> OpenCell:
        """Open the run of a cell; `machine` is the one that measures it, None if it is this one."""
        # The terminal, the page and MLflow name a cell after what varies
        label = varying_label(config, state.axes)
        where = CellRef(*place_of(folder))
        run_id = tracking.attempt(
            lambda tracker: tracker.start_cell(label, state.parent_run_id, where)
        )
        cell = cls(
            config,
            home,
            state,
            number,
            f"cell {number + 1}/{state.cells} {label}",
            MeasuredCell(folder, run_id, state.axes),
            sweep_journal(home, state.dashboard_url, cell=number),
            tracking,
        )
        cell.show(machine)
        return cell

    def show(self, machine: str | None) -> None:
        """Show on the live page that the cell starts, on `machine`."""
        label = varying_label(self.config, self.state.axes)
        self.journal.write(CellStarted(label, self.config.texts, machine))

    def end(self, result: RunResult) -> None:
        """Show on the live page how the cell has ended."""
        is_cut = result.failure == Failure.INTERRUPTED
        self.journal.write(CellEnded(result.status, result.error, is_cut, result.metrics))

    def close(self, result: RunResult, *, last: bool) -> None:
        """Write the report of the cell and end its MLflow run; see `Closing.close`."""
        url, config = self.state.dashboard_url, self.config
        if url and config.value("dashboard.screenshot") and result.metrics:
            screenshot_dashboard(url, self.measured.folder, config.value("dashboard.token"))
        closing.close(self.measured, self.tracking, last=last)

    def end_unmeasured(self, error: OSError) -> None:
        """End the run of a cell that was not measured, because its folder could not be written."""
        run_id, config = self.measured.run_id, self.config
        if run_id is None:
            return
        result = RunResult(Status.FAILED, config, config.cell_id, error=os_error_message(error))
        self.tracking.attempt(
            lambda tracker: tracker.finish_cell(
                run_id, result, self.measured.folder, axes=self.measured.axes, whole=False
            )
        )

    def tell(self, result: RunResult, left: int, where: str = "") -> None:
        """Print the figures of the cell; `left` cells are still to be measured, 0: don't say."""
        left_s = time_left_s(self.home, left) if left else 0.0
        line = f"{cell_line(result, self.shown)}{where}"
        line += f"; ~{duration(left_s)} left" if left_s else ""
        if result.error:
            console.print(Text(line, "yellow"), soft_wrap=not console.is_terminal)
        else:
            console.tell(line, markup=False)
