"""A cheap check that a safetensors file is whole: its header, not its tensors."""

from __future__ import annotations

import json
from pathlib import Path

from crossbench.errors import ModelError

_LARGEST_HEADER = 100_000_000  # the format's own limit, bytes


def check_safetensors(path: Path) -> None:
    """Compare the file's size with what its header announces.

    Raises:
        ModelError: the header cannot be read, or the file is shorter or longer than it says.
    """
    advice = "copy or download the file again"
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _LARGEST_HEADER):
            raise ModelError(
                f"{path} is not a whole safetensors file ({size} bytes, its header alone claims "
                f"{length}): {advice}"
            )
        raw = file.read(length)
    try:
        header = json.loads(raw)
        ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
        expected = 8 + length + max(ends)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} has no readable safetensors header: {advice}") from error
    if size != expected:
        raise ModelError(f"{path} has {size} bytes where its header says {expected}: {advice}")
