"""The tiles of the page: the figures of one cell, or those of a server without a cell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from crossbench.dashboard.board import Board
from crossbench.dashboard.cell_row import CellRow
from crossbench.dashboard.figures import Sample
from crossbench.measure import catalogue
from crossbench.measure.metric import Metric
from crossbench.measure.statistics import percentile_supported
from crossbench.report.columns import interval_of, requests_ok
from crossbench.wording import ABSENT, counted, number, percent

TILES = 9
_SHOWN_PERCENTILES = (50, 95, 99)
_WAIT = catalogue.stage("queue", "p50")


@dataclass(frozen=True, slots=True)
class Tile:
    """A large figure with its unit, and a small line below."""

    label: str
    value: str
    unit: str
    below: str = ""


def tiles(board: Board, row: CellRow | None) -> Iterator[Tile]:
    """Yield the tiles of a cell, or of the server if `row` is None.

    There are TILES, and one more if the cell or the server has a device.
    """
    return _cell_tiles(board, row) if row is not None else _server_tiles(board)


def figure(metric: Metric, figures: Mapping[str, float]) -> str:
    """A cell's metric as text; `~` marks a percentile that too few requests support."""
    text = metric.text(figures.get(metric.name))
    level = metric.percentile
    unsure = level is not None and not percentile_supported(level, requests_ok(figures))
    return f"~{text}" if unsure and text != ABSENT else text


def _cell_tiles(board: Board, row: CellRow) -> Iterator[Tile]:
    figures, rate = row.figures, row.rate
    last = board.server.last if row is board.served else None
    now = last.metrics if last else None
    interval = interval_of(rate, figures)
    below = "so far" if row.is_running else f"95 %: {interval}" if interval else ""
    yield Tile("Throughput", figure(rate, figures), rate.unit, below)
    requests = counted(requests_ok(figures), "request") if figures else ""
    for level in _SHOWN_PERCENTILES:
        metric = catalogue.latency(level)
        below = f"of {requests}" if requests else ""
        yield Tile(f"Latency p{level}", figure(metric, figures), metric.unit, below)
    waiting = f"{now.queue_pairs:,} {row.unit} wait now" if now else ""
    yield Tile("Queue, median wait", figure(_WAIT, figures), _WAIT.unit, waiting)
    waste = figures.get(catalogue.PADDING_WASTE.name)
    below = "" if waste is None else f"padding waste {percent(waste, 1)}"
    yield Tile("Micro-batch", figure(catalogue.per_batch(row.unit), figures), row.unit, below)
    below = f"{number(last.cores)} now" if last and last.cores is not None else ""
    yield Tile("CPU of the server", figure(catalogue.CORES_USED, figures), "cores", below)
    memory = catalogue.RSS_PEAK_MB
    below = f"{number(now.rss_mb)} now" if now else ""
    yield Tile("Memory, peak", figure(memory, figures), memory.unit, below)
    failed = int(figures.get(catalogue.REQUESTS_FAILED.name, 0))
    below = f"{failed:,} failed" if figures else ""
    if now:
        below = ", ".join(filter(None, (below, f"{now.requests_in_flight} in flight")))
    yield Tile("Requests", figure(catalogue.REQUESTS_OK, figures), "ok", below)
    device = catalogue.DEVICE_PEAK_MB
    if device.name in figures:
        busy = _busiest(last) if last else ""
        yield Tile("Device memory, peak", figure(device, figures), device.unit, busy)


def _server_tiles(board: Board) -> Iterator[Tile]:
    last, totals = board.server.last, board.server.totals
    metrics = last.metrics if last else None
    yield Tile("Throughput", number(last.pairs_per_s if last else None), f"{board.unit}/s",
               "of the last 5 s")  # fmt: skip
    recent = metrics.latency_ms if metrics else None
    for level in _SHOWN_PERCENTILES:
        value = getattr(recent, f"p{level}") if recent is not None and recent.count else None
        yield Tile(f"Latency p{level}", number(value), "ms", "of the last 30 s")
    queued = metrics.queue_pairs if metrics else None
    wait_ms = last.interval.mean_ms("queue") if last else None
    yield Tile("Queue", number(queued), board.unit, f"wait {number(wait_ms)} ms")
    waste = totals.padding_waste
    below = f"padding waste {ABSENT if waste is None else percent(waste, 1)}"
    yield Tile("Micro-batch", number(totals.pairs_per_batch), board.unit, below)
    cpu_time = f"{number(metrics.cpu_s)} s in total" if metrics else ""
    yield Tile("CPU of the server", number(last.cores if last else None), "cores", cpu_time)
    resident = metrics.rss_mb if metrics else None
    peak = f"peak {number(metrics.rss_peak_mb)}" if metrics else ""
    yield Tile("Memory", number(resident), "MB", peak)
    failed = sum(board.server.failed.values())
    below = f"{failed:,} failed, {metrics.requests_in_flight if metrics else 0} in flight"
    yield Tile("Requests", f"{totals.requests_ok:,}", "ok", below)
    if last is not None and board.server.has_device:
        yield _device_tile(last)


def _device_tile(last: Sample) -> Tile:
    metrics = last.metrics
    if not last.gpus:
        peak = f"peak {number(metrics.device_memory_peak_mb)}"
        return Tile("Device memory", number(metrics.device_memory_mb), "MB", peak)
    model = f"model {number(metrics.device_memory_mb)} MB" if metrics.device_memory_mb else ""
    busiest = max(last.gpus, key=lambda gpu: gpu.utilization)
    below = model or f"{number(busiest.memory_used_mb)} of {number(busiest.memory_total_mb)} MB"
    return Tile(f"GPU {busiest.index}", f"{100 * busiest.utilization:.0f}", "%", below)


def _busiest(last: Sample) -> str:
    if not last.gpus:
        return f"{number(last.metrics.device_memory_mb)} now"
    busiest = max(last.gpus, key=lambda gpu: gpu.utilization)
    return f"GPU {busiest.index} {percent(busiest.utilization)} busy"
