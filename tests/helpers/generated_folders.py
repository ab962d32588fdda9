"""Generate small model folders with different settings in their files.

`changes(form)` draws a few settings of one form of folder; `make` writes the folder.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

DROPPED = "<this key is not there>"
ABSENT = "<this file is not there>"
PLAIN, CROSS_ENCODER, EMBEDDER = "plain", "cross-encoder of version 6", "embedder"
FORMS = (PLAIN, CROSS_ENCODER, EMBEDDER)
IDENTITY = "torch.nn.modules.linear.Identity"
SIGMOID = "torch.nn.modules.activation.Sigmoid"

Settings = dict[tuple[str, str], list[Any]]

_PLAIN: Settings = {
    ("config.json", "id2label"): [DROPPED, {"0": "a"}, {"0": "a", "1": "b"}],
    ("config.json", "num_labels"): [1, 2],
    ("config.json", "sentence_transformers"): [
        DROPPED, {}, {"activation_fn": None}, {"activation_fn": SIGMOID},
        {"activation_fn": "torch.nn.Sigmoid"}, {"activation_fn": "my.Identity"},
        {"activation_fn": "torch.nn.modules.activation.Tanh"}, {"version": "4.1.0"},
    ],
    ("config.json", "sbert_ce_default_activation_function"): [IDENTITY, SIGMOID, None],
    ("config.json", "pad_token_id"): [DROPPED, None, 0, 7],
    ("config.json", "hidden_act"): [DROPPED, "gelu", "gelu_new", "relu"],
    ("config.json", "layer_norm_eps"): [DROPPED, 1e-5],
    ("config.json", "position_embedding_type"): ["absolute", "relative_key"],
    ("config.json", "type_vocab_size"): [DROPPED, 1],
    ("config.json", "is_decoder"): [True, False],
    ("config.json", "architectures"): [DROPPED, ["BertModel"], ["BertForMaskedLM"]],
    ("config.json", "return_dict"): [False],
    ("config.json", "output_hidden_states"): [True],
    ("config.json", "chunk_size_feed_forward"): [8],
    ("config.json", "max_position_embeddings"): [DROPPED, 64],
    ("config.json", "vocab_size"): [3000, DROPPED],
    ("config.json", "num_attention_heads"): [4, 3],
    ("config.json", "num_hidden_layers"): [2, DROPPED],
    ("config.json", "intermediate_size"): [128],
    ("config.json", "problem_type"): ["regression"],
    ("config.json", "dtype"): ["float16", DROPPED],
    ("config.json", "auto_map"): [{"AutoModel": "x--y"}],
    ("config.json", "something_of_my_own"): [True],
    ("tokenizer_config.json", "strip_accents"): [False, True, DROPPED],
    ("tokenizer_config.json", "do_lower_case"): [False, DROPPED],
    ("tokenizer_config.json", "tokenize_chinese_chars"): [False],
    ("tokenizer_config.json", "tokenizer_class"): [
        DROPPED, "BertTokenizerFast", "PreTrainedTokenizerFast", "DistilBertTokenizer",
        "ElectraTokenizer",
    ],
    ("tokenizer_config.json", "model_max_length"): [DROPPED, 16, int(1e30)],
    ("tokenizer_config.json", "truncation_side"): ["left"],
    ("tokenizer_config.json", "padding_side"): ["left", "right"],
    ("tokenizer_config.json", "model_input_names"): [["input_ids", "attention_mask"]],
    ("tokenizer_config.json", "split_special_tokens"): [True],
    ("tokenizer_config.json", "additional_special_tokens"): [["river"], ["<new>"]],
    ("tokenizer_config.json", "pad_token"): [DROPPED, None, "[UNK]"],
    ("tokenizer_config.json", "cls_token"): ["[MASK]"],
    ("tokenizer_config.json", "chat_template"): ["{{ messages }}"],
    ("tokenizer.json", "post_processor"): [None],
    ("tokenizer.json", "normalizer"): [
        None, {"type": "Lowercase"},
        {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
         "strip_accents": None, "lowercase": False},
    ],
    ("tokenizer.json", "truncation"): [
        {"direction": "Left", "max_length": 8, "strategy": "OnlyFirst", "stride": 0}
    ],
    ("tokenizer.json", "padding"): [
        {"strategy": {"Fixed": 20}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
         "pad_type_id": 0, "pad_token": "[PAD]"}
    ],
    ("tokenizer.json", "*"): [ABSENT],  # an older folder, with only vocab.txt
    ("tokenizer_config.json", "*"): [ABSENT],
    # Without modules.json the library reads neither of these
    ("sentence_bert_config.json", "max_seq_length"): [12],
    ("config_sentence_transformers.json", "activation_fn"): [IDENTITY, SIGMOID],
}  # fmt: skip
_MODULES: Settings = {
    ("sentence_bert_config.json", "max_seq_length"): [None, 12, 512],
    ("sentence_bert_config.json", "do_lower_case"): [True, False],
    ("sentence_bert_config.json", "tokenizer_args"): [
        {"do_lower_case": False}, {"model_max_length": 10}, {}, {"subfolder": "x"},
    ],
    ("sentence_bert_config.json", "model_args"): [
        {"dtype": "float16"}, {"trust_remote_code": True}, {"add_pooling_layer": False},
    ],
    ("sentence_bert_config.json", "transformer_task"): ["fill-mask", DROPPED],
    ("sentence_bert_config.json", "query_length"): [6, None],
    ("sentence_bert_config.json", "new_in_version_7"): [1],
    ("config_sentence_transformers.json", "prompts"): [
        {"query": "find: ", "document": "text: "}, {"query": "find: ", "passage": "text: "},
        {"mine": "water "}, {"query": None},
    ],
    ("config_sentence_transformers.json", "default_prompt_name"): [None, "query", "mine"],
    ("config_sentence_transformers.json", "similarity_fn_name"): [
        None, "cosine", "dot", "euclidean", "manhattan", "maxsim",
    ],
    ("config_sentence_transformers.json", "truncate_dim"): [None, 8, 1000],
    ("config_sentence_transformers.json", "activation_fn"): [None, IDENTITY, SIGMOID, "my.Sigmoid"],
    ("config_sentence_transformers.json", "model_type"): ["SparseEncoder"],
    ("config_sentence_transformers.json", "new_in_version_7"): [1],
}  # fmt: skip
_POOLING: Settings = {
    ("1_Pooling/config.json", "pooling_mode"): [
        "cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken",
        ["cls", "mean"], [], "median",
    ],
    ("1_Pooling/config.json", "pooling_mode_cls_token"): [True],
    ("1_Pooling/config.json", "pooling_mode_max_tokens"): [True],
    ("1_Pooling/config.json", "include_prompt"): [False],
    ("1_Pooling/config.json", "embedding_dimension"): [64],
    ("1_Pooling/config.json", "new_in_version_7"): [1],
    ("2_Normalize/config.json", "module_input_name"): ["sentence_embedding", "token_embeddings"],
}  # fmt: skip
_SETTINGS = {
    PLAIN: _PLAIN,
    CROSS_ENCODER: {**_PLAIN, **_MODULES},
    EMBEDDER: {**_PLAIN, **_MODULES, **_POOLING},
}


@st.composite
def changes(draw: st.DrawFn, form: str) -> dict[tuple[str, str], Any]:
    """Draw up to three settings of a form; half of them in sentence-transformers' own files."""
    own = {**_MODULES, **(_POOLING if form == EMBEDDER else {})} if form != PLAIN else _PLAIN
    keys = st.one_of(st.sampled_from(list(own)), st.sampled_from(list(_SETTINGS[form])))
    chosen = draw(st.lists(keys, min_size=1, max_size=3, unique=True))
    return {key: draw(st.sampled_from(_SETTINGS[form][key])) for key in chosen}


def make(base: Path, folder: Path, form: str, changed: Mapping[tuple[str, str], Any]) -> None:
    """Write the folder, with the weights of `base`."""
    folder.mkdir()
    (folder / "model.safetensors").hardlink_to(base / "model.safetensors")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(base / name, folder)
    vocabulary = json.loads((base / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
    (folder / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.get)), "utf-8")
    if form == CROSS_ENCODER:
        _write_modules(folder, [("", "Transformer")])
        _edit(folder / "config_sentence_transformers.json", model_type="CrossEncoder")
        _edit(folder / "sentence_bert_config.json", transformer_task="sequence-classification")
    elif form == EMBEDDER:
        modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
        if any(name.startswith("2_Normalize") for name, _ in changed):
            modules.append(("2_Normalize", "Normalize"))
        _write_modules(folder, modules)
        _edit(folder / "1_Pooling/config.json", word_embedding_dimension=32)
    for (name, key), value in changed.items():
        if value == ABSENT:
            (folder / name).unlink()
        elif key != "*":
            _edit(folder / name, **{key: value})


def _write_modules(folder: Path, modules: list[tuple[str, str]]) -> None:
    document = [
        {"idx": number, "name": str(number), "path": path,
         "type": f"sentence_transformers.models.{kind}"}
        for number, (path, kind) in enumerate(modules)
    ]  # fmt: skip
    (folder / "modules.json").write_text(json.dumps(document))


def _edit(file: Path, **changed: Any) -> None:
    file.parent.mkdir(exist_ok=True)
    document = json.loads(file.read_text("utf-8")) if file.exists() else {}
    document = {key: value for key, value in {**document, **changed}.items() if value != DROPPED}
    file.write_text(json.dumps(document), "utf-8")
