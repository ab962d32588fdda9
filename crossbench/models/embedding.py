"""What makes a model folder a sentence-transformer: its modules, pooling, normalisation, prompts.

The layout is sentence-transformers' own: `modules.json` lists the modules in their order, each with
the folder of its configuration; `config_sentence_transformers.json` may hold prompts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from crossbench.errors import ModelError
from crossbench.models.json_file import read_json, read_json_list
from crossbench.types import Float32Array, Int64Array

POOLING_MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
MODULES_FILE = "modules.json"
LIBRARY_FILE = "config_sentence_transformers.json"
# How folders of before sentence-transformers 6 write the modes, one flag each.
_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


@dataclass(frozen=True)
class Embedding:
    """How one vector is made of a text's token states.

    `modes` are of POOLING_MODES; the vectors of several lie end to end. `normalize` scales to
    length 1. The prompts are put before a text that is embedded for its own sake, before a query,
    and before a passage; most models have none ("").
    """

    modes: tuple[str, ...]
    normalize: bool
    prompt: str
    query_prompt: str
    passage_prompt: str

    @property
    def reads_cls(self) -> bool:
        """Only the states of the first token are read."""
        return self.modes == ("cls",)

    def dim(self, hidden: int) -> int:
        """Numbers in one vector, for token states of `hidden` numbers."""
        return hidden * len(self.modes)


def read_embedding(path: Path) -> Embedding | None:
    """What the folder says of pooling; None where it holds no sentence-transformer.

    Raises:
        ModelError: its files are broken, or it has a module or a pooling that we do not compute.
    """
    if not (path / MODULES_FILE).is_file():
        return None
    modules = read_json_list(path / MODULES_FILE)
    kinds = [str(module.get("type", "")).rsplit(".", 1)[-1] for module in modules]
    if "Pooling" not in kinds:  # a cross-encoder, which sentence-transformers 6 saves this way too
        return None
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise ModelError(
            f"{path / MODULES_FILE} has the modules {', '.join(kinds)}: crossbench embeds with "
            "Transformer, Pooling and, where there is one, Normalize. Choose a model of these"
        )
    if modules[0].get("path"):
        raise ModelError(
            f"{path / MODULES_FILE} keeps the transformer in {modules[0]['path']}: move that "
            "folder's files beside modules.json and set its path to an empty string"
        )
    file = path / str(modules[1].get("path", "")) / "config.json"
    pooling = read_json(file)
    library = read_json(path / LIBRARY_FILE) if (path / LIBRARY_FILE).is_file() else {}
    prompt, query_prompt, passage_prompt = _prompts(library)
    if not pooling.get("include_prompt", True) and any((prompt, query_prompt, passage_prompt)):
        raise ModelError(
            f"{file} leaves prompts out of pooling (include_prompt), which crossbench does not: "
            "choose a model without prompts, or one that pools them"
        )
    return Embedding(
        _modes(pooling, file), "Normalize" in kinds, prompt, query_prompt, passage_prompt
    )


def cosines(
    vectors: Float32Array, first: Int64Array | list[int], second: Int64Array | list[int]
) -> Float32Array:
    """Cosine of the rows numbered `first` and `second` (shape (n,)) of `vectors` (m, dim)."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.maximum(lengths, np.float32(1e-12))
    found: Float32Array = np.einsum("ij,ij->i", unit[first], unit[second]).astype(np.float32)
    return found


def _modes(pooling: Mapping[str, Any], file: Path) -> tuple[str, ...]:
    chosen = pooling.get("pooling_mode")
    if chosen is None:
        chosen = [mode for flag, mode in _FLAGS.items() if pooling.get(flag)] or ["mean"]
    modes = (chosen,) if isinstance(chosen, str) else tuple(str(mode) for mode in chosen)
    if unknown := [mode for mode in modes if mode not in POOLING_MODES]:
        raise ModelError(
            f"{file} asks for pooling by {', '.join(unknown)}: crossbench knows "
            f"{', '.join(POOLING_MODES)}"
        )
    return modes


def _prompts(library: Mapping[str, Any]) -> tuple[str, str, str]:
    prompts = library.get("prompts") or {}
    default = prompts.get(library.get("default_prompt_name") or "", "")
    passages = (prompts.get(name) for name in ("document", "passage", "corpus"))
    return default or "", prompts.get("query") or "", next(filter(None, passages), "")
