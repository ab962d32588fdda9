"""Models, batches and reference scores that the tests of all engines share."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from crossbench.backends.base import Deployment
from crossbench.models.folder import ModelFolder
from crossbench.models.reading import read_folder
from crossbench.models.tokenizer import PairTokenizer
from crossbench.types import Float32Array, Pair, Quant, TokenBatch

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"
REAL_MODEL = SHARED / "models/minilm-l6-dl19"
LENGTHS = (7, 33, 12, 12, 5, 64, 21, 3, 33, 50)
WORDS = 200  # the tiny model's ids below it are words; 0 is padding


def backend(
    name: str,
    model: ModelFolder,
    quant: str,
    cache_dir: Path,
    device: str = "cpu",
    **options: object,
) -> object:
    """Return the loaded backend of conf/backend/<name>.yaml, with two threads."""
    config = OmegaConf.merge(node_of(name), options)
    deployment = Deployment(model, Quant(quant), device, 2, cache_dir)
    made = instantiate(config, _partial_=True)(deployment=deployment)
    made.load_model()
    return made


def node_of(name: str) -> DictConfig:
    """Return conf/backend/<name>.yaml merged over the files in its defaults list."""
    node = OmegaConf.load(ROOT / "conf/backend" / f"{name}.yaml")
    assert isinstance(node, DictConfig)
    bases = [node_of(base) for base in node.pop("defaults", []) if isinstance(base, str)]
    merged = OmegaConf.merge(*bases, node)
    assert isinstance(merged, DictConfig)
    return merged


def tiny_model(folder: Path, family: str = "bert", seed: int = 0) -> ModelFolder:
    """Write a random two-layer cross-encoder with a large weight spread, in Hugging Face layout."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    sizes = {
        "vocab_size": 256,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "max_position_embeddings": 130,
        "pad_token_id": 1 if family == "roberta" else 0,
        "num_labels": 1,
        "initializer_range": 0.3,
    }
    config = AutoConfig.for_model(family, **sizes)
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "LayerNorm" in name or name.endswith("bias"):
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        *(chr(97 + i // 26) + chr(97 + i % 26) for i in range(WORDS)),
        *"abcdefghijklmnopqrstuvwxyz",
    ]
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {word: index for index, word in enumerate(words)},
        },
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    settings: dict[str, object] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "[PAD]",
    }
    if family == "roberta":  # it has only one token type
        settings["model_input_names"] = ["input_ids", "attention_mask"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return read_folder(folder, "tiny", 128)


def tiny_batch(lengths: tuple[int, ...] = LENGTHS, types: bool = True) -> TokenBatch:
    """Return random sequences of these lengths; the second half of each has type 1."""
    random = np.random.default_rng(len(lengths))
    ids = random.integers(4, WORDS, sum(lengths)).astype(np.int32)
    halves = [np.arange(length) >= length // 2 for length in lengths]
    kinds = np.concatenate(halves).astype(np.int32) * int(types)
    return TokenBatch.from_lengths(ids, kinds, lengths)


@cache
def real_pairs(count: int = 6) -> list[Pair]:
    """Return MS MARCO pairs of all ranks, spread over the queries; skip the test without them."""
    if not REAL_MODEL.is_dir():
        pytest.skip(f"no real model and text: {SHARED} is absent")
    data = SHARED / "data/msmarco-dl19"
    queries, passages = (
        dict(line.split("\t", 1) for line in (data / name).read_text("utf-8").splitlines())
        for name in ("queries.tsv", "collection.tsv")
    )
    run = [line.split() for line in (data / "run.bm25.txt").read_text().splitlines()]
    pairs = [Pair(queries[row[0]], passages[row[2]]) for row in run if row[2] in passages]
    return pairs[:: len(pairs) // count][:count]


@cache
def real_batch(count: int = 12) -> TokenBatch:
    """Return tokenised MS MARCO pairs; skip the test if the data is absent."""
    tokenizer = PairTokenizer(real_model())
    return tokenizer.encode_pairs(real_pairs(count)).batch


def real_model() -> ModelFolder:
    if not REAL_MODEL.is_dir():
        pytest.skip(f"no real model and text: {SHARED} is absent")
    return read_folder(REAL_MODEL, "minilm-l6-dl19")


def reference(model: ModelFolder, batch: TokenBatch) -> Float32Array:
    """Return the scores of transformers' fp32 forward pass on the padded batch, float32 (n,)."""
    import torch
    from transformers import AutoModelForSequenceClassification

    padded = batch.padded(model.pad_id)
    classifier = AutoModelForSequenceClassification.from_pretrained(model.path).eval()
    with torch.inference_mode():
        logits = classifier(
            input_ids=torch.from_numpy(padded.input_ids),
            token_type_ids=torch.from_numpy(padded.type_ids),
            attention_mask=torch.from_numpy(padded.attention_mask),
        ).logits
    scores: Float32Array = logits[:, 0].numpy()
    return scores


def pick(batch: TokenBatch, *indices: int) -> TokenBatch:
    return batch.select(np.array(indices, dtype=np.intp))


def scores_in_batches(engine: object, batch: TokenBatch, index: int) -> list[float]:
    """Return a sequence's score alone, with the longest others, and with the shortest others."""
    infer = engine.infer  # type: ignore[attr-defined]
    others = [i for i in np.argsort(batch.lengths, kind="stable") if i != index]
    alone = infer(pick(batch, index)).values[0]
    among_long = infer(pick(batch, *others[-4:], index)).values[-1]
    among_short = infer(pick(batch, index, *others[:4])).values[0]
    return [float(alone), float(among_long), float(among_short)]
