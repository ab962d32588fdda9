"""The folder of a cell as bytes: another machine hands it back so."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path


def pack(folder: Path) -> bytes:
    """Return the files of a folder, its subfolders included."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz", compresslevel=1) as archive:
        for path in sorted(folder.iterdir()):
            archive.add(path, path.name)
    return content.getvalue()


def unpack(content: bytes, folder: Path) -> None:
    """Write the files of `pack` into a folder, which may have other ones.

    Raises:
        OSError, tarfile.TarError: they cannot be written or read; a file would lie elsewhere.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
        archive.extractall(folder, filter="data")
