"""The JSON document that `/metrics` returns for a board."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from crossbench.dashboard.board import Board
from crossbench.measure import catalogue
from crossbench.measure.metric import View
from crossbench.serving import inference_pb2 as pb

# Metrics in a cell's row; a cell that embeds has texts/s instead of pairs/s
CELL_FIGURES = tuple(
    metric for metric in catalogue.shown(View.DASHBOARD) if metric is not catalogue.TEXTS_PER_S
)
STAGES = ("tokenize", "queue", "infer")


def document(board: Board, time_s: float) -> dict[str, Any]:
    """Return every figure under a name with its unit; None if it is unknown.

    Counters start at the last reset, throughput covers the last 5 s, latencies and stages the last
    30 s. If the server is gone, the last known figures remain; `status` and `age_s` show that.
    """
    last, totals = board.server.last, board.server.totals
    metrics = last.metrics if last else pb.Metrics()
    window = board.window
    return {
        "status": board.status,
        "address": board.address,
        "age_s": round(time_s - last.time_s, 1) if last else None,
        "since_reset_s": round(board.server.since_reset_s, 3),
        "uptime_s": metrics.uptime_s,
        "server": board.server.facts,
        "throughput": {"pairs_per_s": last.pairs_per_s if last else None},
        "requests": {
            "ok": totals.requests_ok,
            "failed": board.server.failed,
            "in_flight": metrics.requests_in_flight,
        },
        "pairs": totals.pairs,
        "tokens": totals.tokens,
        "truncated_pairs": totals.truncated_pairs,
        "latency_ms": _distribution(metrics.latency_ms),
        "stages_ms": {name: _distribution(getattr(metrics, f"{name}_ms")) for name in STAGES},
        "queue": {"pairs": metrics.queue_pairs, "wait_p50_ms": metrics.queue_ms.p50},
        "batching": {
            "batches": totals.batches,
            "pairs_per_batch": totals.pairs_per_batch,
            "padding_waste": totals.padding_waste,
        },
        "cpu": {"cores": metrics.cpu_cores, "seconds": metrics.cpu_s},
        "memory": {
            "rss_mb": metrics.rss_mb,
            "rss_peak_mb": metrics.rss_peak_mb,
            "device_mb": _optional(metrics, "device_memory_mb"),
            "device_peak_mb": _optional(metrics, "device_memory_peak_mb"),
        },
        "gpus": [asdict(gpu) for gpu in last.gpus] if last else [],
        "client": {**asdict(window), "failed": dict(board.client_failed)} if window else None,
        "sweep": _sweep(board, time_s),
        "config": board.settings,
    }


def _distribution(distribution: pb.Distribution) -> dict[str, float | None]:
    if not distribution.count:
        return {"count": 0, "mean": None, "p50": None, "p95": None, "p99": None}
    names = ("count", "mean", "p50", "p95", "p99")
    return {name: getattr(distribution, name) for name in names}


def _optional(metrics: pb.Metrics, name: str) -> float | None:
    return float(getattr(metrics, name)) if metrics.HasField(name) else None


def _sweep(board: Board, time_s: float) -> dict[str, Any] | None:
    if not board.cells_planned:
        return None
    left_s = board.time_left_s(time_s)
    return {
        "name": board.sweep,
        "state": board.sweep_state,
        "cells": board.cells_planned,
        "done": len(board.done),
        "running": board.current,
        "running_share": round(board.cell_share(), 3),
        "so_far": board.cells[board.current].figures if board.current is not None else None,
        "time_left_s": None if left_s is None else round(left_s, 1),
        "results": [
            {
                "cell": row.number,
                "label": row.label,
                "machine": row.machine,
                "status": row.status,
                "error": row.error,
                **{metric.name: row.figures.get(metric.name) for metric in CELL_FIGURES},
            }
            for row in board.done
        ],
    }
