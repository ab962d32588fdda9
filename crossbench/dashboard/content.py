"""The texts, tables and figures that the page shows for the state of a board."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape

from crossbench.dashboard.board import Board
from crossbench.dashboard.document import CELL_FIGURES, server_facts
from crossbench.dashboard.figures import Sample
from crossbench.measure.catalogue import PAIRS_PER_S, TEXTS_PER_S
from crossbench.measure.metric import Metric
from crossbench.wording import ABSENT, counted, duration, number, percent


@dataclass(frozen=True, slots=True)
class Tile:
    """A large figure with its unit, and a small line below."""

    label: str
    value: str
    unit: str
    below: str = ""


def tiles(board: Board) -> Iterator[Tile]:
    """Yield the tiles with the current figures; the device tile only if there is a device."""
    last, totals = board.last, board.totals
    metrics = last.metrics if last else None
    window = board.windows[-1] if board.windows else None
    speed = last.pairs_per_s if last else None
    unit = board.unit
    of_client = f"client {number(window.pairs_per_s)}" if window else ""
    yield Tile("Throughput", number(speed), f"{unit}/s", of_client)
    recent = metrics.latency_ms if metrics else None
    for name in ("p50", "p95", "p99"):
        value = getattr(recent, name) if recent is not None and recent.count else None
        seen = getattr(window, f"{name}_ms") if window else None
        below = f"client {number(seen)}" if seen is not None else ""
        yield Tile(f"Latency {name}", number(value), "ms", below)
    queued = metrics.queue_pairs if metrics else None
    wait_ms = last.interval.mean_ms("queue") if last else None
    yield Tile("Queue", number(queued), unit, f"wait {number(wait_ms)} ms")
    waste = totals.padding_waste
    below = f"padding waste {ABSENT if waste is None else percent(waste, 1)}"
    yield Tile("Micro-batch", number(totals.pairs_per_batch), unit, below)
    cores = last.cores if last else None
    cpu_time = f"{number(metrics.cpu_s)} s in total" if metrics else ""
    yield Tile("CPU", number(cores), "cores", cpu_time)
    resident = metrics.rss_mb if metrics else None
    peak = f"peak {number(metrics.rss_peak_mb)}" if metrics else ""
    yield Tile("Memory", number(resident), "MB", peak)
    failed = sum(board.failed.values())
    below = f"{failed:,} failed, {metrics.requests_in_flight if metrics else 0} in flight"
    yield Tile("Requests", f"{totals.requests_ok:,}", "ok", below)
    if last is not None and board.has_device:
        yield _device_tile(last)


def _device_tile(last: Sample) -> Tile:
    metrics = last.metrics
    model = f"model {number(metrics.device_memory_mb)} MB" if metrics.device_memory_mb else ""
    if not last.gpus:
        peak = f"peak {number(metrics.device_memory_peak_mb)}"
        return Tile("Device memory", number(metrics.device_memory_mb), "MB", peak)
    busiest = max(last.gpus, key=lambda gpu: gpu.utilization)
    below = model or f"{number(busiest.memory_used_mb)} of {number(busiest.memory_total_mb)} MB"
    return Tile(f"GPU {busiest.index}", f"{100 * busiest.utilization:.0f}", "%", below)


def status_text(board: Board) -> str:
    """The status line of the page; the text changes only if the status does."""
    status = board.status
    cell = ""
    if board.current is not None and board.cells_planned > 1:
        cell = f"cell {board.current + 1} of {board.cells_planned}: "
    if status == "disconnected":
        return f"{cell}disconnected from {board.address}; trying to reconnect"
    if status == "ended":
        return board.ended
    if status == "connected":
        return f"connected to {board.address}"
    if status == "waiting":
        if board.address:
            return f"connecting to {board.address}"
        return "waiting for the next cell" if board.cells else "waiting for the server"
    flags = "; ".join(f"{flag}: {reason}" for flag, reason in board.flags.items())
    return f"{cell}{status}; {flags}" if flags else cell + status


def subtitle(board: Board) -> str:
    """Model, backend, precision, device and workers of the server."""
    facts = server_facts(board.info)
    if not facts:
        return ""
    shown = [facts["model"], facts["backend"], facts["quant"], facts["device"]]
    workers = ""
    if facts["workers"]:
        workers = f"{facts['workers']} × {counted(facts['threads'], 'thread')}"
    return " · ".join(str(item) for item in [*shown, workers] if item)


def sweep_text(board: Board, time_s: float) -> str:
    """Progress of the sweep and the estimated time left."""
    if board.cells_planned <= 1:
        return "one cell"
    left_s = board.time_left_s(time_s)
    left = (
        "time left: unknown until the first cell has ended"
        if left_s is None
        else f"{duration(left_s)} left"
    )
    if len(board.done) == board.cells_planned:
        left = "complete"
    return f"{len(board.done)} of {board.cells_planned} cells done · {left}"


def sweep_share(board: Board) -> float:
    """The completed share of the sweep, 0 to 1, including the running cell's share."""
    if not board.cells_planned:
        return 0.0
    running = board.cell_share() if board.current is not None else 0.0
    return min(1.0, (len(board.done) + running) / board.cells_planned)


def _figure(figures: Mapping[str, float | None], metric: Metric) -> str:
    value = figures.get(metric.name)
    if value is None and metric is PAIRS_PER_S:
        value = figures.get(TEXTS_PER_S.name)
    return metric.text(value)


def cells_html(board: Board) -> str:
    """The table of cells as HTML, newest last, with all texts escaped."""
    embeds = any(row.figures.get(TEXTS_PER_S.name) is not None for row in board.cells.values())
    rate = "pairs or texts/s" if embeds else PAIRS_PER_S.heading
    figures = (rate if metric is PAIRS_PER_S else metric.heading for metric in CELL_FIGURES)
    heads = ("cell", "status", *figures)
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    body = []
    for row in board.cells.values():
        cells = "".join(f"<td>{_figure(row.figures, metric)}</td>" for metric in CELL_FIGURES)
        status = f'<span class="badge {escape(row.status)}">{escape(row.status)}</span>'
        label = f'<th scope="row">{row.number + 1}. {escape(row.label)}</th>'
        body.append(f"<tr>{label}<td>{status}</td>{cells}</tr>")
        if row.error:
            body.append(f'<tr class="why"><td colspan="{len(heads)}">{escape(row.error)}</td></tr>')
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def errors_html(board: Board) -> str:
    """A table of failed requests by status, as counted by the server and by the client."""
    server, client = board.failed, board.client_failed
    if not server and not client:
        return '<p class="quiet">No request has failed.</p>'
    rows = "".join(
        f'<tr><th scope="row">{escape(status)}</th><td>{server.get(status, 0):,}</td>'
        f"<td>{client.get(status, 0):,}</td></tr>"
        for status in sorted({*server, *client})
    )
    head = "".join(f'<th scope="col">{name}</th>' for name in ("status", "server", "client"))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def config_html(board: Board) -> str:
    """The configuration as HTML, top-level values first; without one, the facts of the server."""
    shown = board.settings or {key: str(value) for key, value in server_facts(board.info).items()}
    if not shown:
        return '<p class="quiet">The configuration is not known yet.</p>'
    rows = "".join(
        f"<div><dt>{escape(key)}</dt><dd>{escape(value)}</dd></div>"
        for key, value in sorted(shown.items(), key=lambda item: "." in item[0])
    )
    return f"<dl>{rows}</dl>"
