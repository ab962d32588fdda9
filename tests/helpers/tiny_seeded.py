"""A tiny copy of the seeded model whose files a test may change."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from crossbench.models.folder import ModelFolder
from crossbench.models.sources import LocalModel, SeededModel

Weights = dict[str, NDArray[Any]]
_PLACE = tempfile.TemporaryDirectory(prefix="crossbench-tests-")
WORDS = "bert.embeddings.word_embeddings.weight"


def tiny_seeded(
    folder: Path,
    *,
    change: Callable[[Weights], Weights] = lambda weights: weights,
    config: Mapping[str, Any] | None = None,
    special_tokens: bool = True,
    pooling: str | None = None,
) -> ModelFolder:
    """Write a model with two layers of width 32 to `folder`/tiny, with these changes.

    `change` changes the weights, `config` the config.json. Without `special_tokens` the tokenizer
    adds none. With `pooling` the model is a sentence-transformer.
    """
    path = folder / "tiny"
    shutil.copytree(_made(), path, ignore=shutil.ignore_patterns("manifest.json"))
    weights = change(load_file(path / "model.safetensors"))
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    _update(path / "config.json", config or {})
    if not special_tokens:
        _update(path / "tokenizer.json", {"post_processor": None})
        tokens = {"pad_token": "[PAD]", "unk_token": "[UNK]"}
        kind = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512, **tokens}
        (path / "tokenizer_config.json").write_text(json.dumps(kind))
    if pooling is not None:
        modules = [
            {"name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        ]
        (path / "modules.json").write_text(json.dumps(modules))
        (path / "1_Pooling").mkdir()
        (path / "1_Pooling/config.json").write_text(
            json.dumps({"word_embedding_dimension": 32, "pooling_mode": pooling})
        )
    return LocalModel(None, str(path), None).fetch(folder)


@cache
def _made() -> Path:
    """Return the unchanged folder, generated once per process."""
    place = Path(_PLACE.name)
    return SeededModel("tiny", 0, 2, 32, 2, 64, 30_522, 512, None).fetch(place).path


def bad_word(word_id: int) -> Callable[[Weights], Weights]:
    """Return a change of weights that gives NaN for texts with this word, and only for them."""

    def change(weights: Weights) -> Weights:
        words = weights[WORDS].copy()
        words[word_id] = np.nan
        return {**weights, WORDS: words}

    return change


def overflowing(weights: Weights) -> Weights:
    """Return float16 weights whose first feed-forward layer overflows float16."""
    dense = ("intermediate.dense.weight", "output.dense.weight")
    large = {f"bert.encoder.layer.0.{name}" for name in dense}
    return {
        name: (values * (900 if name in large else 1)).astype(np.float16)
        for name, values in weights.items()
    }


def _update(file: Path, changes: Mapping[str, Any]) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **changes}), "utf-8")
