"""Request records with chosen times."""

from __future__ import annotations

from crossbench.types import RequestRecord


def record(
    sent_s: float,
    received_s: float,
    *,
    index: int = 0,
    due_s: float | None = None,
    pairs: int = 10,
    status: str = "OK",
    infer_ms: float = 5.0,
) -> RequestRecord:
    return RequestRecord(
        index=index,
        due_s=sent_s if due_s is None else due_s,
        sent_s=sent_s,
        received_s=received_s,
        pairs=pairs,
        tokens=pairs * 80,
        truncated=1,
        tokenize_ms=1.0,
        queue_ms=2.0,
        infer_ms=infer_ms,
        status=status,
    )
