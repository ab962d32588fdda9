"""The progress bar of a cell in a terminal, or plain lines if the output is not a terminal.

With CROSSBENCH_QUIET=1, which the option --quiet sets, neither is shown.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import IO, Any, Protocol

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.segment import Segment
from rich.table import Column

from crossbench.errors import ResultError
from crossbench.events import ProgressMade
from crossbench.results import RESULT_FILE, cell_folders, load_result
from crossbench.settings.cell_config import CellConfig
from crossbench.settings.command_line import QUIET
from crossbench.wording import printable

# Terminal columns for everything but the cell's name, with and without the number of requests
WIDE_FIGURES, NARROW_FIGURES = 62, 44
NARROW = 110  # a terminal with fewer columns shows no number of requests


class SteadyConsole(Console):
    """A console that goes quiet on a closed pipe (`| head -1`) or a full disk, and never fails.

    It draws with control characters, and prints those of texts as escapes.
    """

    def print(self, *objects: Any, **options: Any) -> None:
        try:
            super().print(*objects, **options)
        except OSError:
            self.on_broken_pipe()

    def tell(self, *objects: Any, **options: Any) -> None:
        """Print what only says how far the work is, unless the user wants none of it."""
        if not is_quiet():  # a terminal would break lines inside words
            self.print(*objects, soft_wrap=not self.is_terminal, **options)

    @property
    def file(self) -> IO[str]:
        """The stream to draw on; rich itself unwraps only one of those around it."""
        file = super().file
        while (inner := getattr(file, "rich_proxied_file", None)) is not None:
            file = inner
        return file

    @file.setter
    def file(self, new_file: IO[str]) -> None:
        self._file = new_file

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))

    def on_broken_pipe(self) -> None:
        self.quiet = True
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.file.fileno())
        os.close(null)


def is_quiet() -> bool:
    """Return whether the user wants to see only the result, and what goes wrong."""
    return os.environ.get(QUIET, "0") not in {"", "0"}


class CellProgress(Protocol):
    """Receives the stages and the progress of a cell."""

    def stage(self, stage: str) -> None: ...

    def advance(self, made: ProgressMade) -> None: ...

    def flag(self, flags: Mapping[str, str]) -> None:
        """Show the flags of the last seconds (`results.Flag`) with their reasons; none if empty."""
        ...


class _Bar:
    """Draws only on events: a refresh thread would take CPU time from the measurement."""

    def __init__(self, bar: Progress, task: TaskID, label: str, config: CellConfig) -> None:
        self._bar, self._task, self._label = bar, task, label
        requests = config.value("requests")
        self._of = f"/{requests}" if requests else ""
        self._unit = config.task.unit
        self._narrow = bar.console.width < NARROW
        self._flags: Mapping[str, str] = {}
        self._told: set[str] = set()

    def stage(self, stage: str) -> None:
        self._flags = {}
        self._bar.update(self._task, status=stage)
        self._bar.refresh()

    def advance(self, made: ProgressMade) -> None:
        # A flag takes the place of the counter, so that the line still fits
        counter = ", ".join(self._flags) or ("" if self._narrow else f"{made.done}{self._of} req")
        figures = f"{made.pairs_per_s:,.1f} {self._unit}/s, p50 {made.p50_ms:,.1f} ms"
        status = ", ".join(filter(None, (counter, figures)))
        self._bar.update(self._task, completed=made.share, status=status)
        self._bar.refresh()

    def flag(self, flags: Mapping[str, str]) -> None:
        self._flags = flags
        _print_new(self._bar.console, self._label, flags, self._told)


class _Lines:
    """One line per stage, for logs and pipes."""

    def __init__(self, console: Console, label: str) -> None:
        self._console, self._label = console, label
        self._told: set[str] = set()

    def stage(self, stage: str) -> None:
        _print_line(self._console, f"{self._label}: {stage}")

    def advance(self, made: ProgressMade) -> None:
        """Print nothing: a log needs no line every half second."""

    def flag(self, flags: Mapping[str, str]) -> None:
        _print_new(self._console, self._label, flags, self._told)


class NoProgress:
    """Shows nothing."""

    def stage(self, stage: str) -> None: ...

    def advance(self, made: ProgressMade) -> None: ...

    def flag(self, flags: Mapping[str, str]) -> None: ...


def _print_new(console: Console, label: str, flags: Mapping[str, str], told: set[str]) -> None:
    """Print a line for each flag that is not in `told`, and add it: once per cell is enough."""
    for flag in (flag for flag in flags if flag not in told):
        _print_line(console, f"{label}: {flag} now: {flags[flag]}")
    told.update(flags)


def _print_line(console: Console, text: str) -> None:
    console.print(text, highlight=False, soft_wrap=not console.is_terminal, markup=False)


@contextlib.contextmanager
def cell_progress(label: str, config: CellConfig) -> Iterator[CellProgress]:
    """Show the progress of one cell; `label` has its number and its name."""
    if is_quiet():
        yield NoProgress()
        return
    console = SteadyConsole(stderr=True, emoji=False)
    if not console.is_terminal:
        yield _Lines(console, label)
        return
    # On a narrow terminal, the name is shortened and the figures are not
    figures = NARROW_FIGURES if console.width < NARROW else WIDE_FIGURES
    name_columns = console.width - figures
    name = Column(no_wrap=True, overflow="ellipsis", max_width=max(12, name_columns))
    columns = (
        TextColumn("{task.description}", table_column=name, markup=False),
        BarColumn(bar_width=8),
        TextColumn("{task.fields[status]}", table_column=Column(no_wrap=True), markup=False),
    )
    with Progress(*columns, console=console, auto_refresh=False, transient=True) as bar:
        yield _Bar(bar, bar.add_task(label, total=1.0, status="starting"), label, config)


def time_left_s(home: Path, cells: int) -> float:
    """Return how long so many cells will take, if they take as long as those in `home` did.

    A cell lasts from the end of the one before it, because starts and reports take time too.
    """
    times = []
    for folder in cell_folders(home):
        with contextlib.suppress(OSError, ResultError, ValueError):
            ended_s = (folder / RESULT_FILE).stat().st_mtime
            started_s = datetime.fromisoformat(load_result(folder).started_at).timestamp()
            times.append((ended_s, started_s))
    times.sort()
    if not times:
        return 0.0
    ends_s = [ended_s for ended_s, _ in times]
    first_s = max(ends_s[0] - times[0][1], 0.0)
    return cells * median([first_s, *(b - a for a, b in itertools.pairwise(ends_s))])
