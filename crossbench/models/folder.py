"""A model folder as it was read: what every backend and tokenizer loads from."""

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


@dataclass(frozen=True)
class ModelFolder:
    """A cross-encoder, or a sentence-transformer where its layout has an embedding.

    `path` holds config.json, weights and tokenizer. `name` is what reports call it. `max_length` is
    the most tokens a sequence may have: what the model reads, or fewer. `facts` are what
    transformers makes of its files. `caveat` is a sentence that every report must carry (the seeded
    model's relevance means nothing), or None. See reading.read_folder, which makes and checks one.
    """

    path: Path
    name: str
    max_length: int
    layout: Layout
    facts: LibraryFacts = field(repr=False)
    caveat: str | None = None

    @property
    def config(self) -> Mapping[str, Any]:
        """The model's configuration as transformers has it, defaults included."""
        return self.facts.config

    @property
    def embedding(self) -> Embedding | None:
        """How it embeds; None for a cross-encoder, which scores pairs."""
        return self.layout.embedding

    @property
    def embedding_dim(self) -> int:
        """Numbers in one vector; 0 for a cross-encoder."""
        return 0 if self.embedding is None else self.embedding.dim(self.config["hidden_size"])

    @property
    def architecture(self) -> str:
        """The model class that config.json names, for example BertForSequenceClassification."""
        return str((self.config.get("architectures") or ["unknown"])[0])

    @property
    def pad_id(self) -> int:
        """The id that fills a padded batch: the model's, else the tokenizer's."""
        chosen = self.config.get("pad_token_id")
        return int(self.facts.tokenizer.pad_id or 0) if chosen is None else int(chosen)

    @property
    def weights(self) -> tuple[Path, ...]:
        """The safetensors files."""
        return weight_files(self.path)

    @cached_property
    def digest(self) -> str:
        """Hash of every file that decides what is computed, 16 hexadecimal digits.

        It is the key of what is derived from the model, and tells two models apart.
        """
        names = (*CONFIG_FILES, *TOKENIZER_FILES, INDEX_FILE)
        own = [*self.weights, *(self.path / name for name in names)]
        hasher = hashlib.sha256()
        for number, path in enumerate([*own, *self.layout.files]):
            if path.is_file():
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                # Two files may have one name: the pooling's configuration is a config.json, too
                hasher.update(f"{number < len(own)} {path.name} {digest}\n".encode())
        return hasher.hexdigest()[:16]
