"""The board of a sweep from the files in its folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from crossbench.dashboard.board import Board
from crossbench.dashboard.journal import JournalReader
from crossbench.dashboard.process import JOURNAL_FILE
from crossbench.errors import ConfigError, ResultError
from crossbench.events import (
    CellEnded,
    CellStarted,
    Event,
    Recorded,
    RunEnded,
    SweepStarted,
)
from crossbench.report.axes import label, varying
from crossbench.results import RESULT_FILE, Failure, cell_folders, load_result
from crossbench.settings.stored_plan import read_plan
from crossbench.system.folder_lock import is_held

REPORT_FILE = "report.md"
# The journal also has what a cell did while it ran, which ends with the cell
_OF_STORED = (SweepStarted, CellStarted, CellEnded, RunEnded)


def stored_board(folder: Path) -> Board:
    """Return the board of the sweep, or of the single cell, in `folder`, which has ended.

    Its cells are those of the journal, and those with a result: without a dashboard, a sweep has no
    journal.

    Raises:
        ConfigError: there is no sweep in the folder, or it still runs.
    """
    if not folder.is_dir():
        raise ConfigError(f"sweep={folder} does not exist: give the folder of a sweep")
    if is_held(folder):
        raise ConfigError(
            f"sweep={folder} still runs, and its command has printed the address of its live page: "
            "open that, or wait until the sweep has ended"
        )
    board = Board(address=None)
    board.is_stored, board.sweep = True, folder.name
    for recorded in JournalReader(folder / JOURNAL_FILE).new():
        if isinstance(recorded.event, _OF_STORED):
            board.apply(recorded)
    for recorded in _of_results(folder, board):
        board.apply(recorded)
    if not board.cells:
        raise ConfigError(
            f"sweep={folder} has no cell with a result: give the folder of a sweep, such as "
            "outputs/2026-01-31_12-00-00"
        )
    plan = read_plan(folder)
    board.cells_planned = max(board.cells_planned, len(plan.runs) if plan else 0)
    report = folder / REPORT_FILE
    ended = f"report: {report}" if report.is_file() else f"results: {folder}"
    ended_s = board.ended_s or max(row.ended_s or row.started_s for row in board.rows)
    board.apply(Recorded(RunEnded(ended, board.interrupted), ended_s, None))
    return board


def _of_results(folder: Path, board: Board) -> Iterator[Recorded]:
    """Yield the start and the end of each cell with a result; the start unless it is known."""
    cells = cell_folders(folder)
    if not cells and (folder / RESULT_FILE).exists():
        cells = [folder]
    results = {}
    for cell in cells:
        try:
            results[cell] = load_result(cell)
        except ResultError:  # the sweep was killed while it measured this cell
            continue
    axes = varying([result.config for result in results.values()])
    hosts = {result.environment.get("host") for result in results.values()}
    for cell, result in results.items():
        number = 0 if cell == folder else int(cell.name)
        ended_s = (cell / RESULT_FILE).stat().st_mtime
        known = board.cells.get(number)
        if known is None:
            machine = str(result.environment.get("host")) if len(hosts) > 1 else None
            started = CellStarted(label(result.config, axes), result.config.texts, machine)
            yield _at(started, ended_s, number)
        is_cut = result.failure == Failure.INTERRUPTED
        ended = CellEnded(result.status, result.error, is_cut, result.metrics)
        yield _at(ended, (known and known.ended_s) or ended_s, number)
        board.cells[number].facts = {**result.model, "model": result.model.get("name")}


def _at(event: Event, time_s: float, cell: int) -> Recorded:
    return Recorded(event, time_s, cell)
