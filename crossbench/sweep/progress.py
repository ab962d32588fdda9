"""The progress bar of a sweep in the terminal; plain lines where there is no terminal."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column

from crossbench.events import ProgressMade
from crossbench.settings.cell_config import CellConfig

MOST_OF_THE_REST = 62  # columns of a terminal that the bar and the figures take


class SteadyConsole(Console):
    """A terminal that nobody reads (`| head -1`), or a full disk in its place, costs the words that
    are for it, and not what is measured."""

    def print(self, *objects: Any, **options: Any) -> None:
        try:
            super().print(*objects, **options)
        except OSError:
            self.on_broken_pipe()

    def on_broken_pipe(self) -> None:
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.file.fileno())
        os.close(nowhere)


class CellProgress(Protocol):
    """Hears what a cell's child does."""

    def stage(self, stage: str) -> None: ...

    def advance(self, made: ProgressMade) -> None: ...


class _Bar:
    """Drawn only when the child reports: a refreshing thread would take cycles that it measures."""

    def __init__(self, bar: Progress, task: TaskID, config: CellConfig) -> None:
        self._bar, self._task = bar, task
        self._requests = config.value("requests")
        self._unit = config.task.unit

    def stage(self, stage: str) -> None:
        self._bar.update(self._task, status=stage)
        self._bar.refresh()

    def advance(self, made: ProgressMade) -> None:
        status = (
            f"{made.done}/{self._requests} req, {made.pairs_per_s:,.1f} {self._unit}/s, "
            f"p50 {made.p50_ms:,.1f} ms"
        )
        self._bar.update(self._task, completed=made.share, status=status)
        self._bar.refresh()


class _Lines:
    """One line per stage, for logs and pipes."""

    def __init__(self, console: Console, label: str) -> None:
        self._console, self._label = console, label

    def stage(self, stage: str) -> None:
        text = f"{self._label}: {stage}"
        self._console.print(text, highlight=False, soft_wrap=True, markup=False)

    def advance(self, made: ProgressMade) -> None:
        """A log needs no half-seconds."""


@contextlib.contextmanager
def cell_progress(label: str, config: CellConfig) -> Iterator[CellProgress]:
    """Show one cell of this config; `label` says which of how many it is."""
    console = SteadyConsole(stderr=True, emoji=False)
    if not console.is_terminal:
        yield _Lines(console, label)
        return
    # On a narrow terminal the name gives way, not the figures
    wide = console.width - MOST_OF_THE_REST
    name = Column(no_wrap=True, overflow="ellipsis", max_width=max(12, wide))
    columns = (
        TextColumn("{task.description}", table_column=name, markup=False),
        BarColumn(bar_width=8),
        TextColumn("{task.fields[status]}", table_column=Column(no_wrap=True), markup=False),
    )
    with Progress(*columns, console=console, auto_refresh=False, transient=True) as bar:
        yield _Bar(bar, bar.add_task(label, total=1.0, status="starting"), config)
