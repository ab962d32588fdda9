"""Data sets with the settings of conf/, small data sets in files, and checks of their warnings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from crossbench.load.datasets import LoadedDataset
from crossbench.settings.component import Component
from tests.helpers.places import REPO

CONF = REPO / "conf/dataset"


def from_conf(name: str, **changes: Any) -> Any:
    node = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    assert isinstance(node, dict)
    return Component.of("dataset", {**node, **changes}).build()


def load_trec(path: Path | str | None, **changes: Any) -> LoadedDataset:
    return from_conf("trec", path=None if path is None else str(path), **changes).load(None, 0)


ROWS = [
    {
        "query": f"query {number}",
        "query_id": number,
        "passages": {
            "is_selected": [0, 1, 0],
            "passage_text": [f"first {number}", "second", " "],
            "url": ["", "", ""],
        },
    }
    for number in range(4)
]


def load_msmarco(path: Path, **changes: Any) -> LoadedDataset:
    return from_conf("msmarco", path=str(path), **changes).load(None, 0)


def expect_notes(loaded: LoadedDataset, *patterns: str) -> None:
    """Check that each pattern matches a warning and that there are no other warnings."""
    for pattern in patterns:
        assert [text for text in loaded.warnings if re.search(pattern, text)], loaded.warnings
    assert len(loaded.warnings) == len(patterns), loaded.warnings
