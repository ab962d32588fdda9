"""ModelFolder: a checked model folder, from which backends and tokenizers load."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from crossbench.models.embedding import Embedding
from crossbench.models.layout import Layout
from crossbench.models.library_facts import CONFIG_FILES, TOKENIZER_FILES, LibraryFacts
from crossbench.models.weight_files import INDEX_FILE, weight_files
from crossbench.system.digests import sha256_of


@dataclass(frozen=True)
class ModelFolder:
    """A cross-encoder, or a sentence-transformer if its layout has an embedding.

    `path` is the folder with config.json, weights and tokenizer. `name` is the model's name in
    reports. `max_length` is the maximum number of tokens of a sequence. `facts` are the
    configuration and tokenizer as transformers loads them. `caveat` is a sentence for every report
    (for example that a seeded model's scores are meaningless), or None. reading.read_folder creates
    and checks a ModelFolder.
    """

    path: Path
    name: str
    max_length: int
    layout: Layout
    facts: LibraryFacts = field(repr=False)
    caveat: str | None = None

    @property
    def config(self) -> Mapping[str, Any]:
        """The model's configuration as transformers loads it, including defaults."""
        return self.facts.config

    @property
    def embedding(self) -> Embedding | None:
        """The settings of a sentence-transformer; None for a cross-encoder."""
        return self.layout.embedding

    @property
    def embedding_dim(self) -> int:
        """The dimension of a vector; 0 for a cross-encoder."""
        return 0 if self.embedding is None else self.embedding.dim(self.config["hidden_size"])

    @property
    def architecture(self) -> str:
        """The model class that config.json names, for example BertForSequenceClassification."""
        return str((self.config.get("architectures") or ["unknown"])[0])

    @property
    def pad_id(self) -> int:
        """The padding id: the model's, or the tokenizer's if the model has none."""
        pad_id = self.config.get("pad_token_id")
        return int(self.facts.tokenizer.pad_id or 0) if pad_id is None else int(pad_id)

    @property
    def weights(self) -> tuple[Path, ...]:
        """The safetensors files."""
        return weight_files(self.path)

    @cached_property
    def digest(self) -> str:
        """A hash (16 hexadecimal digits) of all files that affect the scores.

        It identifies the model and is part of the key of everything derived from it.
        """
        names = (*CONFIG_FILES, *TOKENIZER_FILES, INDEX_FILE)
        own = [*self.weights, *(self.path / name for name in names)]
        hasher = hashlib.sha256()
        for number, path in enumerate([*own, *self.layout.files]):
            if path.is_file():
                # File names are not unique: the pooling module also has a config.json
                hasher.update(f"{number < len(own)} {path.name} {sha256_of(path)}\n".encode())
        return hasher.hexdigest()[:16]
