"""Compare scores with published scores of models on the hub; skipped if it is unreachable."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crossbench.models.activation import activation_of, identity, sigmoid
from crossbench.models.folder import ModelFolder
from crossbench.models.sources import HubModel
from crossbench.models.tokenizer import PairTokenizer
from crossbench.types import Pair
from tests.helpers.engines import backend
from tests.helpers.places import SHARED

SCORES = SHARED / "reference_scores.json"
TOLERANCE = 1e-4
# Repositories with an export of the same weights as another repository
SAME_WEIGHTS = {
    "Xenova/ms-marco-MiniLM-L-6-v2": "cross-encoder/ms-marco-MiniLM-L6-v2",
    "Xenova/ms-marco-MiniLM-L-12-v2": "cross-encoder/ms-marco-MiniLM-L12-v2",
}
ROUNDING_TOLERANCE = 0.005  # for scores that were published with two decimals


def published() -> Iterator[Any]:
    """Yield (model, entry, query, passages, scores) of all float32 entries."""
    if not SCORES.is_file():
        return
    for entry in json.loads(SCORES.read_text("utf-8")):
        if not entry["dtype"].startswith("float32"):
            continue
        for group in entry.get("groups", [entry]):
            by_model = group.get("scores_by_model") or {entry["model"]: group["scores"]}
            for model, scores in by_model.items():
                repo = SAME_WEIGHTS.get(model.split(" ")[0], model.split(" ")[0])
                case = (repo, entry, group["query"], group["passages"], scores)
                yield pytest.param(*case, id=f"{repo}-{group['query'][:20]}")


@cache
def fetch(repo: str) -> ModelFolder:
    """Download the model, or skip the test if the hub is unreachable."""
    import huggingface_hub

    try:
        huggingface_hub.model_info(repo, timeout=5)
    except Exception as error:  # the hub's errors have no common base
        pytest.skip(f"the hub cannot be reached for {repo}: {type(error).__name__}")
    return HubModel(None, repo, "main", None).fetch(Path())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pytorch", "packed"])
@pytest.mark.parametrize(("repo", "entry", "query", "passages", "scores"), list(published()))
def test_published_scores(
    repo: str,
    entry: dict[str, Any],
    query: str,
    passages: list[str],
    scores: list[float],
    name: str,
    cache_dir: Path,
) -> None:
    model = fetch(repo)
    engine = backend(name, model, cache_dir)
    declared = entry.get("activation", "")
    activation = activation_of(model)
    if declared:
        activation = sigmoid if declared.startswith("sigmoid") else identity
    batch = PairTokenizer(model).encode_pairs([Pair(query, text) for text in passages]).batch
    found = activation(engine.infer(batch).values)
    atol = max(TOLERANCE, entry.get("atol", 0.0))
    tolerance = ROUNDING_TOLERANCE if "2 decimals" in declared else atol
    np.testing.assert_allclose(found, scores, atol=tolerance, rtol=1e-5)
    engine.close()


def test_published_scores_exist(shared: Path) -> None:
    repos = {case.values[0] for case in published()}
    assert {"cross-encoder/ms-marco-MiniLM-L6-v2", "mixedbread-ai/mxbai-rerank-xsmall-v1"} <= repos
