"""Artifacts: files that a backend derives from a model, such as a converted graph, and caches.

An artifact is a folder `cache_dir/<kind>/<key>/` with its files and a manifest of their SHA-256
sums. It is written to a temporary folder and then renamed, so no process reads a partial one. An
artifact whose files are missing or do not match the manifest is built again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from crossbench.errors import ModelError
from crossbench.system.digests import sha256_of
from crossbench.system.json_text import parse_json

MANIFEST = "manifest.json"


def artifact_key(*parts: object) -> str:
    """Return a hash (20 hexadecimal digits) of what defines an artifact.

    `parts` are for example the model's digest, options and library versions.
    """
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:20]


def library_versions(*names: str) -> tuple[str, ...]:
    """Return the installed versions of these distributions, for use in an artifact's key."""
    return tuple(f"{name}=={version(name)}" for name in names)


@dataclass(frozen=True)
class Artifact:
    """The files that `build(folder)` writes to `folder`."""

    folder: Path
    build: Callable[[Path], None]

    def is_complete(self) -> bool:
        """Whether the folder exists and all its files match the manifest."""
        try:
            sums = parse_json((self.folder / MANIFEST).read_text("utf-8"))
            return bool(sums) and all(sha256_of(self.folder / name) == sums[name] for name in sums)
        except (OSError, ValueError, AttributeError, TypeError):
            return False

    def fetch(self) -> Path:
        """Return the folder, and build it first if it is absent or incomplete.

        If another process is building it, wait for that process.

        Raises:
            ModelError: the folder cannot be written.
        """
        if self.is_complete():
            return self.folder
        from filelock import FileLock

        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder.with_name(f"{self.folder.name}.lock")):
                # Another process may have built it while this one waited
                if not self.is_complete():
                    self._build_and_rename()
        except OSError as error:
            raise ModelError(
                f"cannot write {self.folder} ({error}): free some space there or give another "
                "cache folder with cache_dir=DIR"
            ) from error
        return self.folder

    def _build_and_rename(self) -> None:
        prefix = f".{self.folder.name}-"
        for left in self.folder.parent.glob(f"{prefix}*"):  # by a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        draft = Path(tempfile.mkdtemp(prefix=prefix, dir=self.folder.parent))
        try:
            self.build(draft)
            sums = {file.name: sha256_of(file) for file in sorted(draft.iterdir())}
            (draft / MANIFEST).write_text(json.dumps(sums, indent=1), "utf-8")
            shutil.rmtree(self.folder, ignore_errors=True)  # an incomplete one
            draft.rename(self.folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
