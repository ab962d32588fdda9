"""Where a model comes from: made from a seed, downloaded from the hub, or a local folder."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from crossbench.errors import ModelError
from crossbench.models.folder import ModelFolder
from crossbench.models.layout import LIBRARY_FILE, MODULES_FILE, TRANSFORMER_FILES
from crossbench.models.library_facts import CONFIG_FILES, TOKENIZER_FILES
from crossbench.models.reading import read_folder
from crossbench.models.seeded_bert import BertShape, random_weights, scale_head
from crossbench.models.tokenizer import PairTokenizer
from crossbench.models.weight_files import INDEX_FILE, SINGLE_FILE
from crossbench.models.wordpiece import read_word_list, write_tokenizer
from crossbench.types import Pair, TokenBatch

# Raise it whenever the same fields are to give other files: caches are made anew.
_SEEDED_VERSION = 2
_SCORE_STD = 1.5
_MANIFEST = "manifest.json"
# What a model of the hub is read from; "*/": in the folders of its modules
_HUB_FILES = [
    f"{where}{name}"
    for where in ("", "*/")
    for name in (
        *CONFIG_FILES, *TOKENIZER_FILES, *TRANSFORMER_FILES, MODULES_FILE, LIBRARY_FILE,
        SINGLE_FILE, INDEX_FILE, "model-*.safetensors",
    )
]  # fmt: skip


@dataclass(frozen=True)
class SeededModel:
    """A BERT cross-encoder whose weights come from `seed`: speed and memory of the real one.

    `positions` is the most tokens that the model itself can read; `max_length` limits a pair to
    fewer, None to as many. The folder is made once per cache_dir.
    """

    name: str
    seed: int
    layers: int
    hidden: int
    heads: int
    intermediate: int
    vocab_size: int
    positions: int
    max_length: int | None

    def fetch(self, cache_dir: Path) -> ModelFolder:
        """The folder cache_dir/<name>-<hash of what defines it>, made where it is not there.

        Raises:
            ModelError: the sizes make no model, or the folder cannot be written.
        """
        if self.hidden % self.heads:
            raise ModelError(f"hidden {self.hidden} is not a multiple of heads {self.heads}")
        folder = cache_dir.resolve() / f"{self.name}-{self._version()}"
        from filelock import FileLock

        try:
            if not _is_complete(folder):
                folder.parent.mkdir(parents=True, exist_ok=True)
                with FileLock(folder.with_name(f"{folder.name}.lock")):
                    # Another process may have made it while this one waited.
                    if not _is_complete(folder):
                        self._build(folder, cache_dir)
        except OSError as error:
            raise ModelError(
                f"cannot write the seeded model into {cache_dir} ({error}): free some space there "
                "or give another cache folder"
            ) from error
        caveat = (
            f"The weights are random (seed {self.seed}): speed and memory are those of the "
            "real architecture, the relevance of the scores means nothing."
        )
        return read_folder(folder, self.name, self.max_length, cache_dir, caveat)

    def _version(self) -> str:
        fields = {key: value for key, value in asdict(self).items() if key != "max_length"}
        recipe = json.dumps([_SEEDED_VERSION, fields, read_word_list()], sort_keys=True)
        return hashlib.sha256(recipe.encode()).hexdigest()[:12]

    def _build(self, folder: Path, cache_dir: Path) -> None:
        """Write everything beside `folder`, then rename: nobody sees half a model."""
        from safetensors.numpy import save_file

        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
        partial.mkdir()
        shape = BertShape(
            self.layers,
            self.hidden,
            self.heads,
            self.intermediate,
            self.vocab_size,
            self.positions,
        )
        (partial / "config.json").write_text(json.dumps(shape.config(), indent=2) + "\n", "utf-8")
        try:
            write_tokenizer(partial, self.vocab_size, self.positions)
        except ValueError as error:
            raise ModelError(f"vocab_size: {error}") from error
        weights = random_weights(shape, self.seed)
        save_file(weights, partial / "model.safetensors", metadata={"format": "pt"})
        tokenizer = PairTokenizer(read_folder(partial, self.name, None, cache_dir))
        scale_head(weights, shape, _sample_batch(tokenizer, self.seed), _SCORE_STD)
        save_file(weights, partial / "model.safetensors", metadata={"format": "pt"})
        sizes = {file.name: file.stat().st_size for file in partial.iterdir()}
        (partial / _MANIFEST).write_text(json.dumps(sizes, indent=2) + "\n", "utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)


@dataclass(frozen=True)
class HubModel:
    """A model of the Hugging Face hub; it is kept in the hub's own cache (HF_HOME).

    A null `name` becomes the repository's.

    Raises:
        ModelError: no repository was given.
    """

    name: str | None
    repo: str | None
    revision: str
    max_length: int | None

    def __post_init__(self) -> None:
        if not self.repo:
            raise ModelError("model=hub needs a model of the hub: give model.repo=OWNER/NAME")

    def fetch(self, cache_dir: Path) -> ModelFolder:
        """The folder of the downloaded snapshot; only JSON, text and safetensors are fetched.

        Raises:
            ModelError: the hub cannot be reached, has no such model, or the model no safetensors.
        """
        from huggingface_hub import snapshot_download

        assert self.repo
        try:
            path = Path(
                snapshot_download(self.repo, revision=self.revision, allow_patterns=_HUB_FILES)
            )
        except Exception as error:  # the hub's errors have no common base
            reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            raise ModelError(
                f"cannot download {self.repo} at {self.revision!r} from the Hugging Face hub "
                f"({reason}): check the name and the network, or give a folder that holds it with "
                "model=local model.path=DIR"
            ) from error
        name = self.name or self.repo.rsplit("/", 1)[-1]
        return read_folder(path, name, self.max_length, cache_dir)


@dataclass(frozen=True)
class LocalModel:
    """A folder in the Hugging Face layout; a relative path is below the current directory.

    Raises:
        ModelError: no path was given.
    """

    name: str | None
    path: str | None
    max_length: int | None

    def __post_init__(self) -> None:
        if not (self.path or "").strip():
            raise ModelError("model=local needs a folder: give model.path=DIR")

    def fetch(self, cache_dir: Path) -> ModelFolder:
        """The folder itself; a null `name` becomes the folder's.

        Raises:
            ModelError: there is no such folder, or its files are broken.
        """
        assert self.path
        text = self.path.strip()
        path = Path(text).expanduser().resolve()
        if not path.is_dir():
            what = "is a file" if path.exists() else "does not exist"
            raise ModelError(f"model.path={text} {what} ({path}): give a model's folder")
        return read_folder(path, self.name or path.name, self.max_length, cache_dir)


def _sample_batch(tokenizer: PairTokenizer, seed: int) -> TokenBatch:
    """A few pairs of ordinary length, to calibrate the head by."""
    rng = np.random.default_rng([seed, 1])
    words = read_word_list()
    common, content = np.array(words["function"]), np.array(words["content"])

    def text(length: int) -> str:
        picked = np.where(
            rng.random(length) < 0.5,
            common[(len(common) * rng.random(length) ** 2).astype(int)],
            content[(len(content) * rng.random(length) ** 2).astype(int)],
        )
        return " ".join(picked)

    pairs = [
        Pair(text(int(query)), text(int(passage)))
        for query, passage in zip(rng.integers(3, 12, 48), rng.integers(25, 80, 48), strict=True)
    ]
    return tokenizer.encode_pairs(pairs).batch


def _is_complete(folder: Path) -> bool:
    """Every file that was written is there in its full size."""
    try:
        sizes = json.loads((folder / _MANIFEST).read_text("utf-8"))
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False
