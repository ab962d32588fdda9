"""Read sentence-transformers' own files of a folder: modules, pooling, prompts and limits.

Every supported key of every file is listed here. A folder with any other key or value is refused,
because an ignored setting could change the scores. The rules are those of sentence-transformers
6.2, which also reads files of its versions 2 to 5.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from crossbench.errors import ModelError
from crossbench.models.embedding import POOLING_MODES, SIMILARITIES, Embedding
from crossbench.models.folder_files import check_files
from crossbench.models.json_file import read_json, read_json_list, read_optional_json

MODULES_FILE = "modules.json"
LIBRARY_FILE = "config_sentence_transformers.json"
# The first of these files that is not empty is used
TRANSFORMER_FILES = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)
ModelType = Literal["CrossEncoder", "SentenceTransformer"]
# Required settings of the transformer module by model type: task, model output and output name
_TASKS = {
    "CrossEncoder": ("sequence-classification", "logits", "scores"),
    "SentenceTransformer": ("feature-extraction", "last_hidden_state", "token_embeddings"),
}
# Before sentence-transformers 6, each pooling mode is a flag
_POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",  # nosec B105  # a pooling mode
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
# Arguments of AutoTokenizer that change its behaviour, but not the files that it reads
_TOKENIZER_OPTIONS = (
    "model_max_length", "do_lower_case", "strip_accents", "tokenize_chinese_chars", "padding_side",
    "truncation_side", "add_prefix_space", "model_input_names", "split_special_tokens",
    "additional_special_tokens", "clean_up_tokenization_spaces", "add_bos_token", "add_eos_token",
    "pad_token", "unk_token", "cls_token", "sep_token", "mask_token", "bos_token", "eos_token",
)  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """The files and settings of a model folder as sentence-transformers uses them.

    `transformer` is the folder with config.json, weights and tokenizer. `embedding` is None for a
    cross-encoder. `pair_prompt` (a prefix of each query) and `activation` (a dotted path) are set
    for a cross-encoder only. `max_tokens` limits the length of a sequence. `lower_case` lower-cases
    every text. `tokenizer_options` are arguments for AutoTokenizer. `text_only` means that a chat
    template is ignored. `pooled_size` is the hidden size that the pooling module expects. `files`
    are the files that were read.
    """

    transformer: Path
    embedding: Embedding | None = None
    pair_prompt: str = ""
    activation: str | None = None
    max_tokens: int | None = None
    lower_case: bool = False
    tokenizer_options: Mapping[str, Any] = field(default_factory=dict)
    text_only: bool = False
    pooled_size: int | None = None
    files: tuple[Path, ...] = ()


def read_layout(root: Path) -> Layout:
    """Return the layout of a folder; without modules.json it is a plain Hugging Face folder.

    As in the library, the other files of sentence-transformers are ignored without modules.json.

    Raises:
        ModelError: a file is malformed, has a key or a value that crossbench does not support, or
            may not be read (see `check_files`).
    """
    check_files(root, root)
    modules_file = root / MODULES_FILE
    if not modules_file.exists():
        return Layout(root)
    library = _Document(root / LIBRARY_FILE, read_optional_json(root / LIBRARY_FILE))
    model_type = _model_type(library)
    paths = _module_paths(modules_file, model_type)
    for path in paths.values():
        check_files(root, root / path)
    transformer = root / paths["Transformer"]
    settings = _transformer_settings(transformer, model_type)
    prompts, default_prompt = _prompts(library, model_type)
    files = [modules_file, library.path, settings.path]
    embedding, pooled_size = None, None
    if model_type == "SentenceTransformer":
        pooling = _Document.of(root / paths["Pooling"] / "config.json")
        files.append(pooling.path)
        if "Normalize" in paths:
            normalize = root / paths["Normalize"] / "config.json"
            files.append(normalize)
            _check_normalize(_Document(normalize, read_optional_json(normalize)))
        embedding = Embedding(
            modes=_pooling_modes(pooling),
            normalize="Normalize" in paths,
            truncate_dim=library.count("truncate_dim"),
            similarity=library.one_of("similarity_fn_name", SIMILARITIES, "cosine"),
            prompt=default_prompt,
            query_prompt=prompts.get("query", ""),
            # The library uses "passage" and "corpus" only without "document", which always exists
            passage_prompt=prompts.get("document", ""),
        )
        _check_include_prompt(pooling, embedding)
        pooled_size = pooling.count("embedding_dimension")
        pooled_size = pooled_size or pooling.count("word_embedding_dimension")
    options = settings.mapping("processor_kwargs", "tokenizer_args")
    tokenizer = _Document(settings.path, options)
    tokenizer.check_keys(_TOKENIZER_OPTIONS)
    limit = tokenizer.count("model_max_length")
    return Layout(
        transformer=transformer,
        embedding=embedding,
        pair_prompt=default_prompt if model_type == "CrossEncoder" else "",
        activation=library.text("activation_fn") if model_type == "CrossEncoder" else None,
        max_tokens=limit or settings.count("max_seq_length"),
        lower_case=settings.flag("do_lower_case", False),
        tokenizer_options=options,
        text_only=True,
        pooled_size=pooled_size,
        files=tuple(path for path in files if path.is_file()),
    )


@dataclass(frozen=True)
class _Document:
    """A JSON object whose keys are checked, with errors that name file, key and value."""

    path: Path
    values: Mapping[str, Any]

    @classmethod
    def of(cls, path: Path) -> _Document:
        return cls(path, read_json(path))

    def refuse(self, key: str, advice: str) -> ModelError:
        return ModelError(f"{self.path}: {key} = {self.values.get(key)!r}: {advice}")

    def check_keys(self, known: Collection[str]) -> None:
        if unknown := [key for key in self.values if key not in known]:
            raise self.refuse(
                unknown[0],
                "crossbench does not support this key, so its scores could differ from the "
                f"model's. Choose another model; the supported keys are {', '.join(known)}",
            )

    def only(self, key: str, *allowed: object) -> None:
        """Refuse a value other than those in `allowed`; the key may be absent."""
        if key in self.values and self.values[key] not in allowed:
            shown = " or ".join(repr(value) for value in allowed)
            raise self.refuse(key, f"crossbench supports only {shown}")

    def flag(self, key: str, default: bool) -> bool:
        value = self.values.get(key, default)
        if value is not None and not isinstance(value, bool):
            raise self.refuse(key, "it must be true or false")
        return bool(value)

    def text(self, key: str) -> str | None:
        value = self.values.get(key)
        if value is not None and not isinstance(value, str):
            raise self.refuse(key, "it must be a string or null")
        return value

    def count(self, key: str) -> int | None:
        value = self.values.get(key)
        if value is not None and (type(value) is not int or value < 1):
            raise self.refuse(key, "it must be a whole number of at least 1, or null")
        return value

    def one_of(self, key: str, allowed: Collection[str], default: str) -> str:
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, str) or value not in allowed:
            raise self.refuse(key, f"crossbench supports {', '.join(allowed)}")
        return value

    def mapping(self, *keys: str) -> dict[str, Any]:
        """Return the object under the last of these keys that exists, or {} if none does."""
        found: dict[str, Any] = {}
        for key in keys:
            value = self.values.get(key, {})
            if not isinstance(value, dict):
                raise self.refuse(key, "it must be an object")
            found = value if key in self.values else found
        return {name: value for name, value in found.items() if name != "trust_remote_code"}


def _model_type(library: _Document) -> ModelType:
    library.check_keys(
        (
            "__version__", "model_type", "prompts", "default_prompt_name", "similarity_fn_name",
            "truncate_dim", "activation_fn", "keep_in_fp32_modules", "requirements",
        )
    )  # fmt: skip
    library.only("keep_in_fp32_modules", None, [])
    library.only("requirements", None, {})
    model_type = library.values.get("model_type", "SentenceTransformer")
    if model_type == "CrossEncoder":
        return "CrossEncoder"
    if model_type == "SentenceTransformer":
        return "SentenceTransformer"
    raise library.refuse("model_type", "crossbench serves CrossEncoder and SentenceTransformer")


def _module_paths(file: Path, model_type: ModelType) -> dict[str, str]:
    """Return the folder of each module by the name of its class."""
    modules = read_json_list(file)
    kinds = [str(module.get("type", "")).rsplit(".", 1)[-1] for module in modules]
    if model_type == "CrossEncoder":
        allowed = [["Transformer"]]
    else:
        allowed = [["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]]
    if kinds not in allowed:
        raise ModelError(
            f"{file} has the modules {', '.join(kinds) or 'none'}, but for a {model_type} "
            f"crossbench supports {' or '.join(', '.join(modules) for modules in allowed)}: choose "
            "a model with these modules"
        )
    for module in modules:
        document = _Document(file, module)
        document.check_keys(("idx", "name", "path", "type", "kwargs"))
        document.only("kwargs", None, [], {})
        path = document.text("path") or ""
        if not str(module["type"]).startswith("sentence_transformers."):
            raise document.refuse("type", "crossbench never runs a model folder's own code")
        if Path(path).is_absolute() or ".." in Path(path).parts:
            raise document.refuse("path", "it must be a folder below modules.json")
    return {
        kind: str(module.get("path") or "") for kind, module in zip(kinds, modules, strict=True)
    }


def _transformer_settings(folder: Path, model_type: ModelType) -> _Document:
    for name in TRANSFORMER_FILES:
        document = _Document(folder / name, read_optional_json(folder / name))
        if document.values:
            break
    else:
        document = _Document(folder / TRANSFORMER_FILES[0], {})
    document.check_keys(
        (
            "max_seq_length", "do_lower_case", "transformer_task", "modality_config",
            "module_output_name", "processing_kwargs", "unpad_inputs", "query_length",
            "document_length", "query_expansion", "model_kwargs", "model_args", "config_kwargs",
            "config_args", "processor_kwargs", "tokenizer_args", "tokenizer_name_or_path",
        )
    )  # fmt: skip
    task, output, name = _TASKS[model_type]
    if document.values.get("transformer_task", "feature-extraction") != task:
        raise document.refuse("transformer_task", f"of a {model_type} it must be {task!r}")
    document.only("modality_config", {"text": {"method": "forward", "method_output_name": output}})
    document.only("module_output_name", name)
    for key in ("query_length", "document_length", "query_expansion", "tokenizer_name_or_path"):
        document.only(key, None)
    for key in ("processing_kwargs", "config_kwargs", "config_args"):
        document.only(key, None, {})
    for key in ("model_kwargs", "model_args"):
        # `quant` selects the precision, and the attention implementation does not change scores
        ignored = document.mapping(key).keys() - {"dtype", "torch_dtype", "attn_implementation"}
        if ignored:
            raise document.refuse(key, f"crossbench does not support {', '.join(sorted(ignored))}")
    return document


def _prompts(library: _Document, model_type: ModelType) -> tuple[dict[str, str], str]:
    """Return the prompts by name, and the default prompt."""
    given = library.values.get("prompts", {})
    if not isinstance(given, dict) or not all(
        text is None or isinstance(text, str) for text in given.values()
    ):
        raise library.refuse("prompts", "it must be an object whose values are strings")
    prompts = {name: text or "" for name, text in given.items()}
    if model_type == "SentenceTransformer":
        prompts = {"query": "", "document": "", **prompts}
    default = library.text("default_prompt_name")
    if default is None:
        return prompts, ""
    if default not in prompts:
        raise library.refuse("default_prompt_name", f"prompts has {', '.join(prompts) or 'none'}")
    return prompts, prompts[default]


def _pooling_modes(pooling: _Document) -> tuple[str, ...]:
    pooling.check_keys(
        (
            "embedding_dimension", "word_embedding_dimension", "pooling_mode", "include_prompt",
            *_POOLING_FLAGS,
        )
    )  # fmt: skip
    if "pooling_mode" in pooling.values:
        chosen = pooling.values["pooling_mode"]
    else:
        flagged = [mode for flag, mode in _POOLING_FLAGS.items() if pooling.values.get(flag)]
        chosen = flagged or ["mean"]
    modes = (chosen,) if isinstance(chosen, str) else chosen
    if not isinstance(modes, list | tuple) or not modes:
        raise pooling.refuse("pooling_mode", f"give one or several of {', '.join(POOLING_MODES)}")
    if unknown := [mode for mode in modes if mode not in POOLING_MODES]:
        raise pooling.refuse(
            "pooling_mode", f"{unknown[0]!r} is none of {', '.join(POOLING_MODES)}"
        )
    return tuple(modes)


def _check_include_prompt(pooling: _Document, embedding: Embedding) -> None:
    prompts = (embedding.prompt, embedding.query_prompt, embedding.passage_prompt)
    if not pooling.flag("include_prompt", True) and any(prompts):
        raise pooling.refuse(
            "include_prompt",
            "it excludes prompts from pooling, which crossbench does not support. Choose a model "
            "without prompts, or one that includes them in pooling",
        )


def _check_normalize(normalize: _Document) -> None:
    """Check the keys that matter; the library ignores all others here."""
    normalize.only("module_input_name", "sentence_embedding")
    normalize.only("module_output_name", None, "sentence_embedding")
