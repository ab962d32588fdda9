"""Model sources: created from a seed, downloaded from the Hugging Face Hub, or a local folder."""

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
from crossbench.system.json_text import parse_json
from crossbench.types import Pair, TokenBatch

# Increase it when the files for unchanged fields change, so that cached models are built again
_SEEDED_VERSION = 2
_SCORE_STD = 1.5
_MANIFEST = "manifest.json"
# Files to download from the hub; "*/" matches the folders of a sentence-transformer's modules
_HUB_FILES = [
    f"{folder}{name}"
    for folder in ("", "*/")
    for name in (
        *CONFIG_FILES, *TOKENIZER_FILES, *TRANSFORMER_FILES, MODULES_FILE, LIBRARY_FILE,
        SINGLE_FILE, INDEX_FILE, "model-*.safetensors",
    )
]  # fmt: skip


@dataclass(frozen=True)
class SeededModel:
    """A BERT cross-encoder with random weights from `seed`, as fast and as large as a real one.

    `positions` is the number of positions that the model has. `max_length` limits the tokens of a
    pair; None means `positions`. The folder is created once per cache_dir.
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

    def check(self) -> None:
        """Do nothing: the model needs no files."""

    def fetch(self, cache_dir: Path) -> ModelFolder:
        """Return the folder cache_dir/<name>-<hash of its fields>, and create it if necessary.

        Raises:
            ModelError: the sizes are invalid, or the folder cannot be written.
        """
        if self.hidden % self.heads:
            raise ModelError(
                f"model.hidden={self.hidden} is not a multiple of model.heads={self.heads}: "
                "change one of them"
            )
        folder = cache_dir.resolve() / f"{self.name}-{self._version()}"
        from filelock import FileLock

        try:
            if not _is_complete(folder):
                folder.parent.mkdir(parents=True, exist_ok=True)
                with FileLock(folder.with_name(f"{folder.name}.lock")):
                    # Another process may have created it while this one waited
                    if not _is_complete(folder):
                        self._build(folder, cache_dir)
        except OSError as error:
            raise ModelError(
                f"cannot write the seeded model into {cache_dir} ({error}): free some space there "
                "or give another cache folder with cache_dir=DIR"
            ) from error
        caveat = (
            f"The weights are random (seed {self.seed}): speed and memory are those of the "
            "real architecture, but the relevance scores are meaningless."
        )
        return read_folder(folder, self.name, self.max_length, cache_dir, caveat)

    def _version(self) -> str:
        fields = {key: value for key, value in asdict(self).items() if key != "max_length"}
        recipe = json.dumps([_SEEDED_VERSION, fields, read_word_list()], sort_keys=True)
        return hashlib.sha256(recipe.encode()).hexdigest()[:12]

    def _build(self, folder: Path, cache_dir: Path) -> None:
        """Write all files to a temporary folder and rename it, so that no process reads half."""
        from safetensors.numpy import save_file

        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)  # left by a process that was killed
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
            raise ModelError(f"model.vocab_size={self.vocab_size}: {error}") from error
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
    """A model on the Hugging Face Hub; downloads are stored in the hub's own cache (HF_HOME).

    `name` defaults to the name of the repository.

    Raises:
        ModelError: no repository was given.
    """

    name: str | None
    repo: str | None
    revision: str
    max_length: int | None

    def __post_init__(self) -> None:
        if not self.repo:
            raise ModelError("model=hub needs a repository: give model.repo=OWNER/NAME")

    def check(self) -> None:
        """Do nothing: only the download shows whether the model exists."""

    def fetch(self, cache_dir: Path) -> ModelFolder:
        """Return the folder of the downloaded snapshot; only JSON, text and safetensors are loaded.

        Raises:
            ModelError: the hub is unreachable, or the model does not exist or has no safetensors.
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
                f"cannot download {self.repo} at {self.revision!r} from the Hugging Face Hub "
                f"({reason}): check the name and the network, or give a folder with the model: "
                "model=local model.path=DIR"
            ) from error
        name = self.name or self.repo.rsplit("/", 1)[-1]
        return read_folder(path, name, self.max_length, cache_dir)


@dataclass(frozen=True)
class LocalModel:
    """A folder in the Hugging Face layout; a relative path starts at the current directory.

    `name` defaults to the name of the folder.

    Raises:
        ModelError: no path was given.
    """

    name: str | None
    path: str | None
    max_length: int | None

    def __post_init__(self) -> None:
        if not (self.path or "").strip():
            raise ModelError("model=local needs a folder: give model.path=DIR")

    def check(self) -> None:
        """Refuse a path without a folder.

        Raises:
            ModelError: the folder does not exist.
        """
        self._folder()

    def fetch(self, cache_dir: Path) -> ModelFolder:
        """Return the checked folder.

        Raises:
            ModelError: the folder does not exist, or its files are invalid.
        """
        path = self._folder()
        return read_folder(path, self.name or path.name, self.max_length, cache_dir)

    def _folder(self) -> Path:
        assert self.path
        text = self.path.strip()
        path = Path(text).expanduser().resolve()
        if not path.is_dir():
            fault = "is a file" if path.exists() else "does not exist"
            raise ModelError(f"model.path={text} {fault} ({path}): give the folder of a model")
        return path


def _sample_batch(tokenizer: PairTokenizer, seed: int) -> TokenBatch:
    """Return a few pairs of typical length, with which the head is scaled."""
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
    """Whether all files in the manifest exist with their full size."""
    try:
        sizes = parse_json((folder / _MANIFEST).read_text("utf-8"))
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False
