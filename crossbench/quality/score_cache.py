"""The cache of reference scores, with one file per list. The key is a hash of all inputs."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crossbench.backends.artifacts import artifact_key, library_versions
from crossbench.errors import NonFiniteValues
from crossbench.models.folder import ModelFolder
from crossbench.system.files import whole_file
from crossbench.types import Float32Array, QueryPassages

_VERSION = 1  # increase it when the computation of the reference changes


@dataclass(frozen=True)
class ReferenceCache:
    """Cached scores of one model, computed by transformers in fp32, in the folder `folder`.

    A file's name is a hash of the model's content, its maximum length, the texts, and the versions
    of tokenizers, torch and transformers. A file with a wrong checksum or with non-finite scores
    is ignored.
    """

    folder: Path
    model: ModelFolder

    def load(self, entry: QueryPassages) -> Float32Array | None:
        """Return the scores, float32 (n,), of the list's passages, or None if there are none."""
        try:
            document = json.loads(self._path(entry).read_text("utf-8"))
            scores = np.array(document["scores"], dtype=np.float32)
            valid = document["sha256"] == _checksum(scores) and len(scores) == len(entry.passages)
            valid = valid and bool(np.isfinite(scores).all())
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return scores if valid else None

    def save(self, entry: QueryPassages, scores: Float32Array) -> None:
        """Store the list's scores atomically.

        Raises:
            NonFiniteValues: a score is NaN or infinite; nothing is stored.
            OSError: the folder cannot be written, or the disk is full.
        """
        if not np.isfinite(scores).all():
            raise NonFiniteValues(
                f"the reference scores of query {entry.query_id} are not finite and are not cached"
            )
        document = json.dumps({"sha256": _checksum(scores), "scores": scores.tolist()})
        path = self._path(entry)
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as partial:
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


def _checksum(scores: Float32Array) -> str:
    return hashlib.sha256(np.ascontiguousarray(scores).tobytes()).hexdigest()
