"""Find the safetensors files of a model folder (one, or shards with an index) and read headers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from crossbench.errors import ModelError
from crossbench.models.json_file import read_json, refuse_lfs_pointer

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
_ADVICE = "copy or download the file again"


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor's shape and type in its file's header; `dtype` is safetensors' name (`F32`)."""

    shape: tuple[int, ...]
    dtype: str


def current_name(name: str) -> str:
    """Return transformers' current name of a tensor that early BERT models call `name`."""
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace(
        "LayerNorm.beta", "LayerNorm.bias"
    )


def weight_files(folder: Path) -> tuple[Path, ...]:
    """Return the folder's weight files, sorted by name.

    Raises:
        ModelError: there are none, or the index lists one that is missing.
    """
    single, index = folder / SINGLE_FILE, folder / INDEX_FILE
    if single.is_file():
        return (single,)
    if not index.is_file():
        others = sorted(
            path.name
            for pattern in ("*.bin", "*.safetensors", "*.pt", "*.h5", "*.gguf", "*.msgpack")
            for path in folder.glob(pattern)
        )
        found = f" (it has {', '.join(others[:4])})" if others else ""
        raise ModelError(
            f"{folder} is not a model folder: {SINGLE_FILE} missing{found}. Only safetensors are "
            f"loaded, never pickles: give a folder with {SINGLE_FILE}, or with {INDEX_FILE} and "
            "its shards"
        )
    named = read_json(index).get("weight_map")
    if not isinstance(named, dict) or not named:
        raise ModelError(f"{index} has no weight_map: {_ADVICE}")
    shards = sorted({str(name) for name in named.values()})
    # Refuse paths that lead out of the folder
    if outside := [name for name in shards if Path(name).name != name]:
        raise ModelError(
            f"{index} lists {outside[0]!r}, which is not a file in the folder: restore the file"
        )
    if missing := [name for name in shards if not (folder / name).is_file()]:
        raise ModelError(f"{index} lists {', '.join(missing[:4])}, missing in {folder}: {_ADVICE}")
    return tuple(folder / name for name in shards)


def read_tensor_infos(files: tuple[Path, ...]) -> dict[str, TensorInfo]:
    """Return the tensors of the files; only the headers are read.

    Raises:
        ModelError: a header cannot be read, or a file's size does not match its header.
    """
    infos: dict[str, TensorInfo] = {}
    for path in files:
        infos |= _read_header(path)
    return infos


def _read_header(path: Path) -> dict[str, TensorInfo]:
    from safetensors import SafetensorError, safe_open

    refuse_lfs_pointer(path)
    try:
        with safe_open(path, framework="np") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            infos = {
                current_name(name): TensorInfo(tuple(part.get_shape()), part.get_dtype())
                for name, part in slices.items()
            }
    except (SafetensorError, OSError) as error:
        size = path.stat().st_size
        raise ModelError(
            f"{path} is not a complete safetensors file ({size} bytes; {error}): {_ADVICE}"
        ) from error
    if not infos:
        raise ModelError(f"{path} contains no tensors: {_ADVICE}")
    return infos
