"""What is known of machine, model and data set, with people's names for what results call it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crossbench.report.tables import markdown_table
from crossbench.wording import ABSENT, number

# A key that is not here is its own name
MACHINE = {
    "python": "Python",
    "machine": "architecture",
    "os": "system",
    "cpu": "CPU",
    "cpu_flags": "CPU features",
    "cores_physical": "physical cores",
    "cores_logical": "logical cores",
    "cores_usable": "usable cores",
    "memory_total_mb": "memory (MB)",
    "gpus": "GPUs",
    "git_commit": "crossbench's commit",
    "git_dirty": "changed since that commit",
}
MODEL = {
    "computes_scores": "a model computes the scores",
    "encoder": "whose forward",
    "quant": "precision",
    "architecture": "class",
    "max_length": "most tokens of a pair or text",
    "embedding_dim": "numbers of a vector",
    "digest": "hash of its files",
    "also_served": "served beside it",
    "threads": "threads of each worker",
}
DATASET = {
    "digest": "hash of its texts and judgements",
    "lists": "queries with passages",
    "pairs": "pairs in all",
}


def facts(title: str, values: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """A section with a table of `values`; empty where there are none. A caveat stands elsewhere."""
    rows = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            rows += [[str(inner), fact_text(item)] for inner, item in value.items()]
        elif key != "caveat" and value is not None:
            rows.append([names.get(key, key), fact_text(value)])
    return f"## {title}\n\n{markdown_table(['', 'value'], rows)}" if rows else ""


def fact_text(value: Any) -> str:
    """A value as people write it: yes or no, a list with commas, 10,000."""
    if isinstance(value, list | tuple):
        return ", ".join(fact_text(item) for item in value) or ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return number(value)
    return ABSENT if value is None else str(value)
