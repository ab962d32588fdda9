"""The cache of reference scores, with one file per list. The key is a hash of all inputs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crossbench.backends.artifacts import library_versions
from crossbench.errors import NonFiniteValues
from crossbench.models.folder import ModelFolder
from crossbench.system.json_cache import cache_path, load_cached, write_cached
from crossbench.types import Float32Array, QueryPassages

_VERSION = 2  # increase it when the computation of the reference changes


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
            scores = np.array(load_cached(self._path(entry)), dtype=np.float32)
        except (ValueError, TypeError):
            return None
        valid = scores.shape == (len(entry.passages),) and bool(np.isfinite(scores).all())
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
        write_cached(self._path(entry), scores.tolist())

    def _path(self, entry: QueryPassages) -> Path:
        return cache_path(
            self.folder,
            _VERSION,
            self.model.digest,
            self.model.max_length,
            library_versions("tokenizers", "torch", "transformers"),
            entry.query,
            entry.passages,
        )
