"""Read the pairs that all contestants score from TREC files, using only the standard library."""

from __future__ import annotations

from pathlib import Path

Pair = tuple[str, str]


def read_pairs(folder: Path) -> list[Pair]:
    """Return the (query, passage) pairs of a run, in the run's order."""
    queries = _read_tsv(folder / "queries.tsv")
    passages = _read_tsv(folder / "collection.tsv")
    (run,) = sorted(folder.glob("run*"))[:1]
    rows = (line.split() for line in run.read_text("utf-8").splitlines())
    return [(queries[row[0]], passages[row[2]]) for row in rows]


def _read_tsv(path: Path) -> dict[str, str]:
    rows = (line.split("\t", 1) for line in path.read_text("utf-8").splitlines())
    return dict(rows)
