"""The reference's scores, kept by the content that they follow from: one small file a list."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crossbench.backends.artifacts import library_versions
from crossbench.errors import NonFiniteValues
from crossbench.models.folder import ModelFolder
from crossbench.system.json_cache import cache_path, load_cached, write_cached
from crossbench.types import Float32Array, QueryPassages

_VERSION = 2  # raise it when what the reference computes changes


@dataclass(frozen=True)
class ReferenceCache:
    """Scores of transformers' fp32 forward under `folder`, for one model.

    A file's name is the hash of the model's content, its maximum length, the texts and the
    versions of tokenizers, torch and transformers. A file that is broken or holds a score that is
    not finite is ignored.
    """

    folder: Path
    model: ModelFolder

    def load(self, entry: QueryPassages) -> Float32Array | None:
        """Scores float32 (n,) of the list's passages; None if they are not there or broken."""
        try:
            scores = np.array(load_cached(self._path(entry)), dtype=np.float32)
        except (ValueError, TypeError):
            return None
        whole = scores.shape == (len(entry.passages),) and bool(np.isfinite(scores).all())
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
