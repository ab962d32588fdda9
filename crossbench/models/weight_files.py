"""The safetensors files of a model folder: one, or shards that an index names."""

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
    """A tensor as the header of its file describes it; `dtype` is safetensors' name (`F32`)."""

    shape: tuple[int, ...]
    dtype: str


def current_name(name: str) -> str:
    """What transformers calls a tensor that a folder of BERT's first years calls `name`."""
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace(
        "LayerNorm.beta", "LayerNorm.bias"
    )


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The files that hold the folder's weights, in the order of their names.

    Raises:
        ModelError: there are none, or the index names one that is not there.
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
            "the shards that it names"
        )
    named = read_json(index).get("weight_map")
    if not isinstance(named, dict) or not named:
        raise ModelError(f"{index} has no weight_map: {_ADVICE}")
    shards = sorted({str(name) for name in named.values()})
    # A name that leads out of the folder is not a shard of this model
    if outside := [name for name in shards if Path(name).name != name]:
        raise ModelError(f"{index} names {outside[0]!r}, which is not a file of the folder")
    if missing := [name for name in shards if not (folder / name).is_file()]:
        raise ModelError(f"{index} names {', '.join(missing[:4])}, not in {folder}: {_ADVICE}")
    return tuple(folder / name for name in shards)


def read_tensor_infos(files: tuple[Path, ...]) -> dict[str, TensorInfo]:
    """The tensors that the files hold, from their headers alone.

    Raises:
        ModelError: safetensors refuses a file (its header, or its size), or a file is empty.
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
            f"{path} is not a whole safetensors file ({size} bytes; {error}): {_ADVICE}"
        ) from error
    if not infos:
        raise ModelError(f"{path} holds no tensors: {_ADVICE}")
    return infos
