"""A model folder in the Hugging Face layout: what every backend and tokenizer loads from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from crossbench.errors import ModelError
from crossbench.models.embedding import LIBRARY_FILE, Embedding, read_embedding
from crossbench.models.json_file import read_json

REQUIRED_FILES = ("config.json", "model.safetensors", "tokenizer.json")


@dataclass(frozen=True)
class ModelFolder:
    """A folder with `config.json`, `model.safetensors` and `tokenizer.json`: a cross-encoder.

    With sentence-transformers' `modules.json` and a pooling beside them it is an embedder.

    `name` is what reports call it. `max_length` is the most tokens a sequence may have: the
    model's positions, or fewer. `caveat` is a sentence that every report must carry (the seeded
    model's relevance means nothing), or None.

    Raises:
        ModelError: a file is missing, or config.json is not a model's configuration.
    """

    path: Path
    name: str
    max_length: int
    caveat: str | None = None

    def __post_init__(self) -> None:
        missing = [name for name in REQUIRED_FILES if not (self.path / name).is_file()]
        if missing:
            raise ModelError(
                f"{self.path} is not a model folder: {', '.join(missing)} missing. Give a folder "
                f"with {', '.join(REQUIRED_FILES)} (only safetensors are loaded, never pickles)"
            )

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.json, with the activation that sentence-transformers 6 keeps in another file."""
        config = read_json(self.path / "config.json")
        if (self.path / LIBRARY_FILE).is_file():
            stored = read_json(self.path / LIBRARY_FILE).get("activation_fn")
            if stored is not None:
                own = config.get("sentence_transformers") or {}
                config["sentence_transformers"] = {**own, "activation_fn": stored}
        return config

    @cached_property
    def embedding(self) -> Embedding | None:
        """How it embeds; None for a cross-encoder, which scores pairs.

        Raises:
            ModelError: the folder asks for a pooling that we do not compute.
        """
        return read_embedding(self.path)

    @property
    def embedding_dim(self) -> int:
        """Numbers in one vector; 0 for a cross-encoder."""
        hidden = int(self.config.get("hidden_size") or self.config.get("dim") or 0)
        return 0 if self.embedding is None else self.embedding.dim(hidden)

    @property
    def architecture(self) -> str:
        """The model class that config.json names, for example BertForSequenceClassification."""
        return str((self.config.get("architectures") or ["unknown"])[0])

    @property
    def pad_id(self) -> int:
        return int(self.config.get("pad_token_id") or 0)

    @cached_property
    def digest(self) -> str:
        """Content hash of what is computed, 16 hexadecimal digits: the key of derived caches."""
        hasher = hashlib.sha256()
        for name in REQUIRED_FILES:
            with (self.path / name).open("rb") as file:
                hasher.update(hashlib.file_digest(file, "sha256").digest())
        if self.embedding is not None:
            hasher.update(repr(self.embedding).encode())
        return hasher.hexdigest()[:16]


class ModelSource(Protocol):
    """Where a model comes from (conf/model): embedded, the hub, a local folder."""

    def fetch(self, cache_dir: Path) -> ModelFolder:
        """The model's folder, made or downloaded into `cache_dir` where it is not there yet.

        Raises:
            ModelError: the model cannot be had or its folder is broken.
        """
        ...
