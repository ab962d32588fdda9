"""Tables of facts about machine, model and data set, with readable names for their keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crossbench.report.tables import markdown_table
from crossbench.wording import ABSENT, number

# A key without an entry here is shown as it is
MACHINE = {
    "python": "Python",
    "machine": "architecture",
    "os": "system",
    "cpu": "CPU",
    "cpu_flags": "CPU features",
    "cores_physical": "physical cores",
    "cores_logical": "logical cores",
    "cores_usable": "usable cores",
    "cores_client": "cores of the client",
    "cores_server": "cores of the server",
    "memory_total_mb": "memory (MB)",
    "gpus": "GPUs",
    "git_commit": "crossbench's commit",
    "git_dirty": "uncommitted changes",
}
MODEL = {
    "computes_scores": "scores computed by a model",
    "encoder": "implementation of the forward pass",
    "quant": "precision",
    "architecture": "architecture",
    "max_length": "maximum tokens per pair or text",
    "embedding_dim": "embedding dimension",
    "digest": "hash of its files",
    "also_served": "other models on the server",
    "threads": "threads per worker",
}
DATASET = {
    "digest": "hash of its texts and judgements",
    "lists": "queries with passages",
    "pairs": "pairs in total",
}


def facts(title: str, values: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """A section with a table of `values`, empty without any; `caveat` is left out, it is a note."""
    table = facts_table(values, names)
    return f"## {title}\n\n{table}" if table else ""


def facts_table(values: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """The table of `facts` without its heading."""
    rows = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            rows += [[str(inner), fact_text(item)] for inner, item in value.items()]
        elif key != "caveat" and value is not None:
            rows.append([names.get(key, key), fact_text(value)])
    return markdown_table(["", "value"], rows) if rows else ""


def fact_text(value: Any) -> str:
    """A value as text: `yes` or `no` for a bool, a list with commas, `10,000`."""
    if isinstance(value, list | tuple):
        return ", ".join(fact_text(item) for item in value) or ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return number(value)
    return ABSENT if value is None else str(value)
