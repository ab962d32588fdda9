"""Which files of a model folder may be read: regular ones of a sensible size, inside the folder."""

from __future__ import annotations

import stat
from pathlib import Path

from crossbench.errors import ModelError

_MIB = 1 << 20
# Gemma's tokenizer.json has 33 MB, that of XLM-R 17 MB
LARGEST_VOCABULARY = 64 * _MIB
LARGEST_JSON = 4 * _MIB
_VOCABULARIES = frozenset(
    {"tokenizer.json", "vocab.json", "added_tokens.json", "model.safetensors.index.json"}
)
# Endings of the files that crossbench, transformers or tokenizers may read
_READ = (".json", ".txt", ".model", ".codes", ".jinja", ".safetensors")
_LINKED_FOLDERS = ("additional_chat_templates",)  # transformers lists this folder


def check_files(root: Path, folder: Path) -> None:
    """Check the files in `folder`, which is `root` or the folder of one of its modules.

    Links may lead to other files in `root`. If it is a snapshot of the Hugging Face cache, they may
    lead to the blobs of that cache's repository.

    Raises:
        ModelError: a file or link leads out of the folder, is no regular file, or is too large.
    """
    if not folder.is_dir():
        return
    _check_place(root, folder)
    for path in sorted(folder.iterdir()):
        if path.name in _LINKED_FOLDERS or path.name.endswith(_READ):
            _check_place(root, path)
            _check_kind(path)


def check_size(path: Path) -> None:
    """Refuse a JSON or vocabulary file that is too large to be one.

    Raises:
        ModelError: it is.
    """
    size = path.stat().st_size
    is_config = path.suffix == ".json" and path.name not in _VOCABULARIES
    limit = LARGEST_JSON if is_config else LARGEST_VOCABULARY
    if size > limit:
        raise ModelError(
            f"{path} has {size / _MIB:.0f} MiB, more than the {limit // _MIB} MiB that such a file "
            "of a model may have: restore the file"
        )


def _check_place(root: Path, path: Path) -> None:
    real, home = path.resolve(), root.resolve()
    places = [home]
    if home.parent.name == "snapshots":
        places.append(home.parents[1] / "blobs")
    if not any(real.is_relative_to(place) for place in places):
        raise ModelError(
            f"{path} is a link to {real}, which is outside the model folder: copy the file into "
            "the folder"
        )


def _check_kind(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:  # a broken link: whoever needs the file says that it is missing
        return
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise ModelError(f"{path} is no regular file: replace it by a copy of the model's file")
