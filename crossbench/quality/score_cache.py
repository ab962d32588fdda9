"""The reference's scores, kept by the content that they follow from: one small file a list."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crossbench.backends.artifacts import artifact_key, library_versions
from crossbench.errors import NonFiniteValues
from crossbench.models.folder import ModelFolder
from crossbench.system.files import atomic_write
from crossbench.types import Float32Array, QueryPassages

_VERSION = 1  # raise it when what the reference computes changes


@dataclass(frozen=True)
class ReferenceCache:
    """Scores of transformers' fp32 forward under `folder`, for one model.

    A file's name is the hash of the model's content, its maximum length, the texts and the
    versions of tokenizers, torch and transformers; its scores carry their own sum, and a file that
    is broken or holds a score that is not finite is as good as none.
    """

    folder: Path
    model: ModelFolder

    def load(self, entry: QueryPassages) -> Float32Array | None:
        """Scores float32 (n,) of the list's passages; None where they are not there or broken."""
        try:
            document = json.loads(self._path(entry).read_text("utf-8"))
            scores = np.array(document["scores"], dtype=np.float32)
            whole = document["sha256"] == _sum(scores) and len(scores) == len(entry.passages)
            whole = whole and bool(np.isfinite(scores).all())
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return scores if whole else None

    def save(self, entry: QueryPassages, scores: Float32Array) -> None:
        """Keep the list's scores, whole or not at all.

        Raises:
            NonFiniteValues: a score is NaN or infinite; nothing is kept.
            OSError: the folder cannot be written, or the disk is full.
        """
        if not np.isfinite(scores).all():
            raise NonFiniteValues(
                f"the reference's scores of query {entry.query_id} are not finite, and are not kept"
            )
        document = json.dumps({"sha256": _sum(scores), "scores": scores.tolist()})
        path = self._path(entry)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as partial:
            partial.write_text(document, "utf-8")

    def _path(self, entry: QueryPassages) -> Path:
        key = artifact_key(
            _VERSION,
            self.model.digest,
            self.model.max_length,
            library_versions("tokenizers", "torch", "transformers"),
            entry.query,
            entry.passages,
        )
        return self.folder / f"{key}.json"


def _sum(scores: Float32Array) -> str:
    return hashlib.sha256(np.ascontiguousarray(scores).tobytes()).hexdigest()
