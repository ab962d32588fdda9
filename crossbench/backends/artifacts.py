"""What a backend derives from a model (a converted graph), kept in a cache and never trusted.

An artifact is a folder `cache_dir/<kind>/<key>/` with its files and a manifest of their sha256.
It is written beside its place and renamed, so that no reader sees half of it; one whose files are
missing or do not match is made again.
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

MANIFEST = "manifest.json"


def artifact_key(*parts: object) -> str:
    """20 hexadecimal digits over what defines an artifact: model digest, options, versions."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:20]


def library_versions(*names: str) -> tuple[str, ...]:
    """What is installed of these distributions: a part of an artifact's key."""
    return tuple(f"{name}=={version(name)}" for name in names)


@dataclass(frozen=True)
class Artifact:
    """What `build(folder)` makes of a model, in `folder`."""

    folder: Path
    build: Callable[[Path], None]

    def is_whole(self) -> bool:
        """It is there, and its files are what was written."""
        try:
            sums = json.loads((self.folder / MANIFEST).read_text("utf-8"))
            return bool(sums) and all(_sha256(self.folder / name) == sums[name] for name in sums)
        except (OSError, ValueError, AttributeError, TypeError):
            return False

    def fetch(self) -> Path:
        """The folder, made where it is absent or broken; who finds another process at it waits.

        Raises:
            ModelError: the folder cannot be written.
        """
        if self.is_whole():
            return self.folder
        from filelock import FileLock

        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder.with_name(f"{self.folder.name}.lock")):
                # Another process may have made it while this one waited.
                if not self.is_whole():
                    self._make()
        except OSError as error:
            raise ModelError(
                f"cannot write {self.folder} ({error}): free some space there or give another "
                "cache folder with cache_dir=DIR"
            ) from error
        return self.folder

    def _make(self) -> None:
        draft = Path(tempfile.mkdtemp(prefix=f".{self.folder.name}-", dir=self.folder.parent))
        try:
            self.build(draft)
            sums = {file.name: _sha256(file) for file in sorted(draft.iterdir())}
            (draft / MANIFEST).write_text(json.dumps(sums, indent=1), "utf-8")
            shutil.rmtree(self.folder, ignore_errors=True)  # which is broken
            draft.rename(self.folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
