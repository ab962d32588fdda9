"""A model folder in the Hugging Face layout: what every backend and tokenizer loads from."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from crossbench.errors import ModelError

REQUIRED_FILES = ("config.json", "model.safetensors", "tokenizer.json")


@dataclass(frozen=True)
class ModelFolder:
    """A folder with `config.json`, `model.safetensors` and `tokenizer.json`.

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
        """config.json as it stands."""
        return read_json(self.path / "config.json")

    @property
    def architecture(self) -> str:
        """The model class that config.json names, for example BertForSequenceClassification."""
        return str((self.config.get("architectures") or ["unknown"])[0])

    @property
    def pad_id(self) -> int:
        return int(self.config.get("pad_token_id") or 0)

    @cached_property
    def digest(self) -> str:
        """Content hash of the three files, 16 hexadecimal digits: the key of derived caches."""
        hasher = hashlib.sha256()
        for name in REQUIRED_FILES:
            with (self.path / name).open("rb") as file:
                hasher.update(hashlib.file_digest(file, "sha256").digest())
        return hasher.hexdigest()[:16]


class ModelSource(Protocol):
    """Where a model comes from (conf/model): embedded, the hub, a local folder."""

    def fetch(self, cache_dir: Path) -> ModelFolder:
        """The model's folder, made or downloaded into `cache_dir` where it is not there yet.

        Raises:
            ModelError: the model cannot be had or its folder is broken.
        """
        ...


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a model folder's file.

    Raises:
        ModelError: the file is not a JSON object.
    """
    try:
        document = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as JSON ({error}): restore the file") from error
    if not isinstance(document, dict):
        raise ModelError(f"{path} holds no JSON object: restore the file")
    return document
