"""The texts and tables that the page shows for the state of a board."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping
from html import escape
from typing import Any

from crossbench.dashboard.board import Board, SweepState
from crossbench.dashboard.cell_row import INTERRUPTED, RUNNING, CellRow
from crossbench.dashboard.document import CELL_FIGURES
from crossbench.dashboard.tiles import figure
from crossbench.measure.catalogue import PAIRS_PER_S
from crossbench.measure.metric import Metric
from crossbench.wording import counted, duration

FINISHED = "finished"
OUTCOMES = (RUNNING, INTERRUPTED, FINISHED, "failed", "unavailable", "unsupported")
WRITING = "the report is being written"


def status_text(board: Board) -> str:
    """The status line of the page; the text changes only if the status does."""
    status = board.status
    row = None if board.current is None else board.cells[board.current]
    cell = ""
    if row is not None and board.cells_planned > 1:
        cell = f"cell {row.number + 1} of {board.cells_planned}: "
    if status == "disconnected":
        return f"{cell}disconnected from {board.address}; trying to reconnect"
    if status == "ended":
        done = sweep_progress(board) if board.cells else ""
        return f"{done}; {board.ended}" if done else board.ended
    if status == "connected":
        return f"connected to {board.address}"
    if status == "waiting":
        return _waiting_text(board)
    flags = "; ".join(f"{flag}: {reason}" for flag, reason in row.flags.items()) if row else ""
    return f"{cell}{status}; {flags}" if flags else cell + status


def _waiting_text(board: Board) -> str:
    if board.address:
        return f"connecting to {board.address}"
    if not board.cells:
        return "waiting for the server"
    if board.sweep_state is SweepState.RUNNING:
        return "waiting for the next cell"
    return f"{sweep_progress(board)}; {WRITING}"


def sweep_progress(board: Board) -> str:
    """How many cells have ended, and how the sweep stands if it does not go on."""
    done, planned = len(board.done), board.cells_planned
    state = board.sweep_state
    if planned == 1:
        return "complete" if state is SweepState.COMPLETE else str(state)
    share = f"{done:,} of {counted(planned, 'cell')}"
    match state:
        case SweepState.COMPLETE:
            return f"{share}, complete"
        case SweepState.INTERRUPTED:
            return f"interrupted after {share}"
        case SweepState.INCOMPLETE:
            return f"ended after {share}"
        case _:
            return f"{share} done"


def sweep_text(board: Board, time_s: float) -> str:
    """Progress of the sweep, the estimated time left, and how many cells have no result."""
    parts = [sweep_progress(board)]
    if board.sweep_state is SweepState.RUNNING and board.cells_planned > 1:
        left_s = board.time_left_s(time_s)
        parts.append(
            "time left: unknown until the first cell has ended"
            if left_s is None
            else f"{duration(left_s)} left"
        )
    counts = Counter(row.status for row in board.done)
    parts += [f"{count} {status}" for status, count in counts.items() if status != FINISHED]
    return " · ".join(parts)


def sweep_share(board: Board) -> float:
    """The completed share of the sweep, 0 to 1, including the running cell's share."""
    if not board.cells_planned:
        return 0.0
    return min(1.0, (len(board.done) + board.cell_share()) / board.cells_planned)


def cell_title(board: Board, row: CellRow) -> str:
    """The cell whose figures the tiles show: `Cell 3 of 6: onnx int8 batch=32`."""
    if board.cells_planned <= 1:
        return row.label
    where = f" on {row.machine}" if row.machine else ""
    return f"Cell {row.number + 1} of {board.cells_planned}: {row.label}{where}"


def cell_state(row: CellRow) -> str:
    """The stage of a running cell, or how it ended."""
    return row.stage if row.is_running else row.outcome


def again_text(board: Board) -> str:
    """How to see the page of a sweep that has ended; empty before."""
    if not board.ended or not board.folder:
        return ""
    command = f"python -m crossbench.dashboard {shlex.quote(f'sweep={board.folder}')}"
    return f"To see this page later: {command}"


def class_of(outcome: str) -> str:
    """The CSS class of an outcome, which an event may have made up."""
    return outcome if outcome in OUTCOMES else ""


def subtitle(facts: Mapping[str, Any], settings: Mapping[str, str]) -> str:
    """Model, backend, precision, device and workers, from the settings until the server answers."""
    named = {key: settings.get(key) for key in ("model", "backend", "quant", "device")}
    shown = [facts.get(key) or named[key] for key in named]
    workers = ""
    if facts.get("workers"):
        workers = f"{facts['workers']} × {counted(facts['threads'], 'thread')}"
    return " · ".join(str(item) for item in [*shown, workers] if item)


def cells_html(board: Board, shown: CellRow | None) -> str:
    """The cells as HTML, in the order of their numbers, with all texts escaped.

    It is a table, or one card per cell on a narrow screen. A cell that runs has no figures: the
    tiles have them.
    """
    embeds = {row.unit for row in board.cells.values()} - {PAIRS_PER_S.unit.partition("/")[0]}
    rate = "pairs or texts/s" if embeds else PAIRS_PER_S.heading
    heads = ("cell", "status", *(_heading(metric, rate) for metric in CELL_FIGURES))
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    body: list[str] = []
    for row in board.rows:
        cells = "".join(_figure_html(row, metric, rate) for metric in CELL_FIGURES)
        status = f'<span class="badge {class_of(row.outcome)}">{escape(row.outcome)}</span>'
        pressed = str(row is shown).lower()
        name = (
            f'<button type="button" data-cell="{row.number}" aria-pressed="{pressed}">'
            f"{row.number + 1}. {escape(row.label)}</button>"
        )
        if row.machine:
            name += f' <span class="quiet">{escape(row.machine)}</span>'
        kind = ' class="running"' if row.is_running else ""
        body.append(f'<tr{kind}><th scope="row">{name}</th><td>{status}</td>{cells}</tr>')
        if row.error:
            body.append(f'<tr class="why"><td colspan="{len(heads)}">{escape(row.error)}</td></tr>')
    unsure = "~" in "".join(body)
    note = '<p class="quiet">~ fewer than five requests lie beyond this percentile</p>'
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
    return table + note * unsure


def _heading(metric: Metric, rate: str) -> str:
    return rate if metric is PAIRS_PER_S else metric.heading


def _figure_html(row: CellRow, metric: Metric, rate: str) -> str:
    of_cell = row.rate if metric is PAIRS_PER_S else metric
    text = figure(of_cell, {} if row.is_running else row.figures)
    heading = of_cell.heading if metric is PAIRS_PER_S else _heading(metric, rate)
    return f'<td data-heading="{heading}">{text}</td>'


def errors_html(board: Board) -> str:
    """A table of failed requests by status, as counted by the server and by the client."""
    server, client = board.server.failed, board.client_failed
    if not server and not client:
        return '<p class="quiet">No request has failed.</p>'
    rows = "".join(
        f'<tr><th scope="row">{escape(status)}</th><td>{server.get(status, 0):,}</td>'
        f"<td>{client.get(status, 0):,}</td></tr>"
        for status in sorted({*server, *client})
    )
    head = "".join(f'<th scope="col">{name}</th>' for name in ("status", "server", "client"))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def config_html(facts: Mapping[str, Any], settings: Mapping[str, str]) -> str:
    """The settings as HTML, top-level values first; without any, the facts of the server."""
    shown = settings or {key: str(value) for key, value in facts.items()}
    if not shown:
        return '<p class="quiet">The configuration is not known yet.</p>'
    rows = "".join(
        f"<div><dt>{escape(key)}</dt><dd>{escape(value)}</dd></div>"
        for key, value in sorted(shown.items(), key=lambda item: "." in item[0])
    )
    return f"<dl>{rows}</dl>"
