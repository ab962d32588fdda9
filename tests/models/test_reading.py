"""Tests of reading a model folder: the library's rules, consistent sizes, digests."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from crossbench.errors import ModelError
from crossbench.models.activation import activation_of
from crossbench.models.folder import ModelFolder
from crossbench.models.layout import LIBRARY_FILE
from crossbench.models.reading import read_folder
from crossbench.models.tokenizer import PairTokenizer
from crossbench.system.json_cache import load_cached
from crossbench.types import Float32Array, Pair
from tests.helpers.places import REPO
from tests.helpers.serving import pytorch

RIVER = [
    Pair("what is a river", "a river is water that runs down to the sea"),
    Pair("what is a river", "the sun is hot"),
]
SIZES = {"layers": 2, "hidden": 32, "heads": 2, "intermediate": 64}


@pytest.fixture(scope="module")
def seeded_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create the folder of a small seeded model once."""
    node = OmegaConf.load(REPO / "conf/model/minilm-l6-seeded.yaml")
    source = instantiate(OmegaConf.merge(node, {"name": "tiny", **SIZES}))
    folder: ModelFolder = source.fetch(tmp_path_factory.mktemp("cache"))
    return folder.path


@pytest.fixture
def folder(seeded_folder: Path, tmp_path: Path) -> Path:
    """Return a copy of the folder, which a test may change."""
    copy = tmp_path / "folder"
    shutil.copytree(seeded_folder, copy, ignore=shutil.ignore_patterns("manifest.json"))
    return copy


def edit(file: Path, **changes: Any) -> None:
    """Change keys of a JSON file, and create the file if necessary; `...` removes a key."""
    file.parent.mkdir(exist_ok=True)
    document = json.loads(file.read_text("utf-8")) if file.exists() else {}
    document = {key: value for key, value in {**document, **changes}.items() if value is not ...}
    file.write_text(json.dumps(document), "utf-8")


def scores(path: Path, pairs: list[Pair]) -> Float32Array:
    """Return scores from our tokens, activation and similarity, and transformers' forward pass."""
    model = read_folder(path, "m")
    tokenizer, engine = PairTokenizer(model), pytorch(model, path)
    embedding = model.embedding
    if embedding is None:
        return activation_of(model)(engine.infer(tokenizer.encode_pairs(pairs).batch).values)
    texts = [embedding.query_prompt + pair.query for pair in pairs]
    texts += [embedding.passage_prompt + pair.passage for pair in pairs]
    vectors = engine.infer(tokenizer.encode_texts(texts).batch).values
    indices = np.arange(len(pairs))
    return embedding.score(embedding.truncate(vectors), indices, indices + len(pairs))


def as_cross_encoder(path: Path, **library: Any) -> None:
    module = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
    (path / "modules.json").write_text(json.dumps([module]))
    edit(path / LIBRARY_FILE, model_type="CrossEncoder", **library)
    edit(path / "sentence_bert_config.json", transformer_task="sequence-classification")


def as_embedder(path: Path, where: str = "", **library: Any) -> None:
    kinds = ((where, "Transformer"), ("1_Pooling", "Pooling"))
    modules = [
        {
            "idx": index,
            "name": str(index),
            "path": place,
            "type": f"sentence_transformers.models.{kind}",
        }
        for index, (place, kind) in enumerate(kinds)
    ]
    (path / "modules.json").write_text(json.dumps(modules))
    edit(path / "1_Pooling/config.json", word_embedding_dimension=32, pooling_mode_mean_tokens=True)
    edit(path / LIBRARY_FILE, **library)


# The expected values are those of sentence-transformers 6.2 on the same folder
def test_the_tokenizer_is_built_as_transformers_does(folder: Path) -> None:
    """For BERT, tokenizer_config.json takes precedence over tokenizer.json."""
    edit(folder / "tokenizer_config.json", strip_accents=False)
    pairs = [Pair("River Café", "The RIVER is naïve water"), Pair("River Café", "water river")]
    assert scores(folder, pairs) == pytest.approx([-2.5237, -4.7805], abs=1e-4)


def test_a_cross_encoders_default_prompt_is_added_before_the_query(folder: Path) -> None:
    from sentence_transformers import CrossEncoder

    prompts = {"web": "find what answers the question: "}
    as_cross_encoder(folder, prompts=prompts, default_prompt_name="web")
    expected = CrossEncoder(str(folder), device="cpu").predict(
        [(pair.query, pair.passage) for pair in RIVER], batch_size=1
    )
    assert scores(folder, RIVER) == pytest.approx(expected, abs=1e-4)
    plain = scores(folder, [replace(pair, query=prompts["web"] + pair.query) for pair in RIVER])
    assert plain != pytest.approx(expected, abs=1e-4)  # the prompt is added once, not twice
    # Without modules.json, neither the library nor crossbench reads the prompts
    (folder / "modules.json").unlink()
    assert scores(folder, RIVER) == pytest.approx([-0.2447, -4.2529], abs=1e-4)


def test_do_lower_case_applies_to_a_case_sensitive_tokenizer(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", do_lower_case=False)
    as_embedder(folder)

    def differ() -> bool:
        model = read_folder(folder, "m")
        batch = PairTokenizer(model).encode_texts(["RIVER water", "river water"]).batch
        first, second = pytorch(model, folder).infer(batch).values
        return bool(np.abs(first - second).max() > 1e-6)

    assert differ()
    edit(folder / "sentence_bert_config.json", do_lower_case=True)
    assert not differ()


@pytest.mark.parametrize(
    ("similarity", "expected"),
    [
        (None, [0.8249, 0.8944]),
        ("cosine", [0.8249, 0.8944]),
        ("dot", [21.338, 24.939]),
        ("euclidean", [-3.076, -2.441]),
    ],
)
def test_the_folders_similarity_function_is_used(
    folder: Path, similarity: str | None, expected: list[float]
) -> None:
    as_embedder(folder, similarity_fn_name=similarity)
    assert scores(folder, RIVER) == pytest.approx(expected, abs=1e-3)


def test_the_head_gives_the_number_of_labels_if_config_json_does_not(folder: Path) -> None:
    edit(folder / "config.json", id2label=..., label2id=..., sentence_transformers=...)
    assert scores(folder, RIVER) == pytest.approx([0.4391, 0.0140], abs=1e-4)


def test_an_older_folder_with_only_a_vocab_txt(folder: Path) -> None:
    vocabulary = json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
    lines = "\n".join(sorted(vocabulary, key=vocabulary.get))
    (folder / "vocab.txt").write_text(lines, "utf-8")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    assert scores(folder, RIVER) == pytest.approx([-0.2447, -4.2529], abs=1e-4)
    (folder / "vocab.txt").unlink()
    with pytest.raises(ModelError, match=r"tokenizer\.json missing"):
        read_folder(folder, "m")


def test_a_decoder_uses_the_tokenizers_pad_token(tmp_path: Path) -> None:
    """Without a pad token in config.json, transformers accepts single pairs but no batches."""
    from tests.helpers.tiny_families import BERT_SPECIAL, TinyFamily, byte_level

    family = TinyFamily(
        "llama", "transformers", lambda: byte_level(BERT_SPECIAL), types=False,
        tokenizer_class="PreTrainedTokenizerFast",
    )  # fmt: skip
    path = family.make(tmp_path).path
    edit(path / "config.json", pad_token_id=None)
    pairs = [*RIVER, Pair("sea", "sun"), *RIVER]
    together = scores(path, pairs)
    alone = [scores(path, [pair])[0] for pair in pairs]
    assert together == pytest.approx(alone, abs=1e-5)
    edit(path / "tokenizer_config.json", pad_token=...)
    with pytest.raises(ModelError, match="has no pad token"):
        read_folder(path, "m")


def test_no_type_ids_are_passed_if_the_tokenizer_gives_none(tmp_path: Path) -> None:
    """GPT-2 accepts type ids and would add their embeddings, but its tokenizer gives none."""
    from sentence_transformers import CrossEncoder

    from tests.helpers.tiny_families import BERT_SPECIAL, TinyFamily, byte_level

    family = TinyFamily(
        "gpt2", "transformers", lambda: byte_level(BERT_SPECIAL), types=False,
        tokenizer_class="PreTrainedTokenizerFast", config={"n_embd": 32, "n_layer": 2, "n_head": 4},
    )  # fmt: skip
    path = family.make(tmp_path).path
    expected = CrossEncoder(str(path), device="cpu").predict(
        [(pair.query, pair.passage) for pair in RIVER], batch_size=1
    )
    assert scores(path, RIVER) == pytest.approx(expected, abs=1e-4)


def test_a_model_that_computes_over_padding_is_refused(tmp_path: Path) -> None:
    """ConvBERT's convolutions ignore the mask, so a score would depend on its batch."""
    from tests.helpers.tiny_families import TinyFamily, wordpiece

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
             "intermediate_size": 64, "embedding_size": 32, "head_ratio": 2}  # fmt: skip
    model = TinyFamily("convbert", "transformers", wordpiece, config=sizes).make(tmp_path)
    with pytest.raises(ModelError, match="computes over padding"):
        pytorch(model, tmp_path)


def test_a_missing_tensor_of_the_head_is_an_error(tmp_path: Path) -> None:
    """DeBERTa's pooler is part of its head, but has the name of an encoder's unused pooler."""
    from safetensors.torch import load_file, save_file

    from tests.helpers.tiny_families import FAMILIES

    model = FAMILIES["deberta-v2"].make(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith("pooler.")}
    assert len(kept) < len(weights)
    save_file(kept, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks the tensors pooler\.dense"):
        pytorch(model, tmp_path)


def test_shards_are_read_with_their_index(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    expected = scores(folder, RIVER)
    weights = load_file(folder / "model.safetensors")
    halves = {
        f"model-0000{part + 1}-of-00002.safetensors": list(weights)[part::2] for part in (0, 1)
    }
    for file, names in halves.items():
        save_file({name: weights[name] for name in names}, folder / file, {"format": "pt"})
    index = {name: file for file, names in halves.items() for name in names}
    (folder / "model.safetensors").unlink()
    edit(folder / "model.safetensors.index.json", metadata={}, weight_map=index)
    assert scores(folder, RIVER) == pytest.approx(expected, abs=1e-5)
    from crossbench.models.weights import read_weights

    assert read_weights(read_folder(folder, "m")).word_embeddings.shape == (30522, 32)
    (folder / next(iter(halves))).unlink()
    with pytest.raises(ModelError, match="lists model-00001-of-00002"):
        read_folder(folder, "m")


def test_a_transformer_module_in_a_subfolder(folder: Path) -> None:
    as_embedder(folder)
    expected = scores(folder, RIVER)
    inner = folder / "0_Transformer"
    inner.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).rename(inner / name)
    as_embedder(folder, "0_Transformer")
    assert scores(folder, RIVER) == pytest.approx(expected, abs=1e-5)
    (folder / "modules.json").unlink()
    with pytest.raises(ModelError, match=r"config\.json missing; .*0_Transformer"):
        read_folder(folder, "m")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_error_for_a_git_lfs_pointer_names_the_file(folder: Path, name: str) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    (folder / name).write_text(pointer)
    with pytest.raises(ModelError, match=f"{name} is a Git LFS pointer.*git lfs pull"):
        read_folder(folder, "m")


def cut_word_embeddings(path: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(path / "model.safetensors")
    table = "bert.embeddings.word_embeddings.weight"
    weights[table] = weights[table][:3000].clone()
    save_file(weights, path / "model.safetensors", {"format": "pt"})


def store_as_int8(path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    weights = load_file(path / "model.safetensors")
    weights["bert.pooler.dense.weight"] = weights["bert.pooler.dense.weight"].to(torch.int8)
    save_file(weights, path / "model.safetensors", {"format": "pt"})


def store_two_encoders(path: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(path / "model.safetensors")
    table = "embeddings.word_embeddings.weight"
    weights[table] = weights[f"bert.{table}"].clone() * 2
    save_file(weights, path / "model.safetensors", {"format": "pt"})


def add_a_token(path: Path) -> None:
    edit(path / "tokenizer_config.json", additional_special_tokens=["<new>"])


def cut_vocabulary(path: Path) -> None:
    cut_word_embeddings(path)
    edit(path / "config.json", vocab_size=3000)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut_word_embeddings, "has the shape 3000 x 32, but config.json requires 30522 x 32"),
        (cut_vocabulary, "ids up to 30521, but the model's word embeddings have only 3000 rows"),
        (add_a_token, "ids up to 30522, but the model's word embeddings have only 30522 rows"),
        (store_as_int8, "pooler.dense.weight is stored as I8"),
        (lambda path: edit(path / "config.json", num_attention_heads=3), "does not divide"),
        (
            lambda path: edit(path / "config.json", num_attention_heads=0),
            "= 0 in config.json does not",
        ),
        (lambda path: edit(path / "config.json", num_hidden_layers=1), "has 2 layers, but"),
        (lambda path: edit(path / "config.json", num_hidden_layers=0), "has 2 layers, but"),
        (lambda path: edit(path / "config.json", pad_token_id=30522), "pad_token_id is 30522"),
        (lambda path: edit(path / "config.json", pad_token_id=-1), "pad_token_id is -1"),
        (lambda path: edit(path / "config.json", layer_norm_eps=float("nan")), "NaN is not a JSON"),
        (lambda path: edit(path / "tokenizer_config.json", model_max_length="128"), "model_max_le"),
        (lambda path: (path / "modules.json").mkdir(), "modules.json cannot be read"),
        (store_two_encoders, "two encoders"),
        (lambda path: (path / "tokenizer_config.json").write_text("{"), "tokenizer_config.json c"),
        (
            lambda path: edit(path / "tokenizer_config.json", fast_tokenizer_files=["t.4.json"]),
            "fast_tokenizer_files",
        ),
        (lambda path: as_embedder(path, similarity_fn_name=["dot"]), "similarity_fn_name"),
        (lambda path: edit(path / "config.json", intermediate_size=32), "intermediate.dense"),
        (lambda path: edit(path / "config.json", max_position_embeddings=64), "position_embedd"),
        (lambda path: edit(path / "adapter_config.json", r=8), "does not support adapters"),
        (lambda path: edit(path / "config.json", quantization_config={"bits": 4}), "quantised"),
        (lambda path: edit(path / "tokenizer_config.json", padding_side="left"), "padding_side"),
    ],
)
def test_inconsistent_or_unsupported_folders_are_refused_on_reading(
    folder: Path, damage: Callable[[Path], None], message: str
) -> None:
    """No engine is involved, so all engines refuse the same folders."""
    damage(folder)
    with pytest.raises(ModelError, match=message) as raised:
        read_folder(folder, "m")
    assert str(folder) in str(raised.value)


def test_the_digest_covers_every_file_that_affects_scores(folder: Path) -> None:
    as_cross_encoder(folder)
    digests = {read_folder(folder, "m").digest}

    def is_new() -> bool:
        before = len(digests)
        digests.add(read_folder(folder, "m").digest)
        return len(digests) > before

    edit(folder / LIBRARY_FILE, activation_fn="torch.nn.modules.activation.Sigmoid")
    assert is_new()
    edit(folder / LIBRARY_FILE, activation_fn="torch.nn.modules.linear.Identity")
    assert is_new()
    edit(folder / "tokenizer_config.json", strip_accents=False)
    assert is_new()
    edit(folder / "sentence_bert_config.json", max_seq_length=30)
    assert is_new()
    edit(folder / "config.json", hidden_act="relu")
    assert is_new()
    edit(folder / LIBRARY_FILE, model_type="SentenceTransformer")
    edit(folder / "sentence_bert_config.json", transformer_task="feature-extraction")
    as_embedder(folder)
    assert is_new()
    edit(folder / "1_Pooling/config.json", pooling_mode="cls")
    assert is_new()
    (folder / "README.md").write_text("a file that does not affect scores")
    assert not is_new()


def test_transformers_is_run_in_a_child_process_and_its_answer_cached(
    folder: Path, tmp_path: Path
) -> None:
    """Importing transformers would cost the measured process 240 MB."""
    program = (
        "import sys; from pathlib import Path; from crossbench.models.reading import read_folder;"
        "folder = read_folder(Path(sys.argv[1]), 'm', None, Path(sys.argv[2]));"
        "assert not {'transformers', 'torch'} & sys.modules.keys(); print(folder.config)"
    )
    cache = tmp_path / "cache"

    def read_in_new_process() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", program, str(folder), str(cache)]
        environment = {**os.environ, "PYTHONPATH": str(REPO)}
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)

    first = read_in_new_process()
    assert first.returncode == 0, first.stderr
    (cached,) = (cache / "folders").iterdir()
    assert read_in_new_process().stdout == first.stdout
    uncached = read_folder(folder, "m")
    assert read_folder(folder, "m", None, cache).facts == uncached.facts
    cached.write_text(cached.read_text("utf-8")[:100], "utf-8")  # truncated by a full disk
    assert read_folder(folder, "m", None, cache).facts == uncached.facts
    assert load_cached(cached) is not None
    (folder / "tokenizer.json").write_text("{}")
    failed = read_in_new_process()
    assert failed.returncode == 1
    assert "transformers cannot read the tokenizer" in failed.stderr.splitlines()[-1]
