"""Tests of model sources: a seed, a local folder and the Hugging Face Hub."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest

from crossbench.errors import ModelError
from crossbench.load.synthetic import make_lists
from crossbench.models.folder import ModelFolder
from crossbench.models.reading import read_folder
from crossbench.models.seeded_bert import BertShape, forward
from crossbench.models.sources import HubModel, LocalModel, SeededModel
from crossbench.models.tokenizer import PairTokenizer
from crossbench.models.wordpiece import build_vocabulary
from crossbench.runner.models import fetch_more_models
from crossbench.settings.places import conf_dir
from crossbench.types import Pair
from tests.helpers.places import REPO
from tests.helpers.plans import plan_of
from tests.helpers.tiny_families import FAMILIES

TINY = SeededModel(
    name="tiny",
    seed=7,
    layers=1,
    hidden=32,
    heads=2,
    intermediate=64,
    vocab_size=8000,
    positions=128,
    max_length=None,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a small model's folder, which a test may damage."""
    return TINY.fetch(tmp_path / "cache").path


def test_seeded_model_has_the_architecture_of_minilm_l6(seeded_model: ModelFolder) -> None:
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(seeded_model.path)
    config = model.config
    assert type(model).__name__ == "BertForSequenceClassification"
    assert (config.num_hidden_layers, config.hidden_size, config.num_attention_heads) == (
        6,
        384,
        12,
    )
    assert (config.intermediate_size, config.vocab_size) == (1536, 30522)
    assert (config.max_position_embeddings, config.num_labels, config.hidden_act) == (
        512,
        1,
        "gelu",
    )
    assert sum(parameter.numel() for parameter in model.parameters()) == 22_713_601
    assert seeded_model.max_length == 512
    assert seeded_model.caveat is not None
    assert "meaningless" in seeded_model.caveat


@pytest.mark.slow
def test_seeded_scores_are_distributed_like_a_trained_models(
    seeded_model: ModelFolder,
) -> None:
    import torch
    from safetensors.numpy import load_file
    from sentence_transformers import CrossEncoder

    tokenizer = PairTokenizer(seeded_model)
    lists = make_lists(tokenizer, 0, queries=12, passages_per_query=8)
    pairs = [(item.query, passage) for item in lists for passage in item.passages]
    encoder = CrossEncoder(str(seeded_model.path), device="cpu")
    assert isinstance(encoder.activation_fn, torch.nn.Identity)
    scores = encoder.predict(pairs, batch_size=16, show_progress_bar=False)
    assert 1.2 < scores.std() < 1.8
    assert abs(scores.mean()) < 0.75
    # Scores depend both on the query and on the passage
    passage = lists[0].passages[0]
    by_query = encoder.predict([(item.query, passage) for item in lists], show_progress_bar=False)
    assert by_query.std() > 0.1
    by_passage = scores.reshape(12, 8).std(axis=1)
    assert by_passage.min() > 0.3
    weights = load_file(seeded_model.path / "model.safetensors")
    shape = BertShape(6, 384, 12, 1536, 30522, 512)
    batch = tokenizer.encode_pairs([Pair(*pair) for pair in pairs[:4]]).batch
    assert forward(weights, shape, batch) == pytest.approx(scores[:4], abs=0.05)


def test_a_seed_determines_the_files(tmp_path: Path) -> None:
    first, again = TINY.fetch(tmp_path / "a"), TINY.fetch(tmp_path / "b")
    other = replace(TINY, seed=8).fetch(tmp_path / "a")
    assert first.digest == again.digest
    assert first.path.name == again.path.name
    assert other.path != first.path
    assert other.digest != first.digest


def test_vocabulary_has_exactly_the_requested_size() -> None:
    vocabulary = build_vocabulary(30522)
    assert sorted(vocabulary.values()) == list(range(30522))
    assert [vocabulary[token] for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]")] == [
        0,
        100,
        101,
        102,
    ]
    with pytest.raises(ValueError, match="too small"):
        build_vocabulary(200)


@pytest.mark.parametrize("damage", ["truncate", "delete", "manifest"])
def test_a_damaged_cached_folder_is_created_again(tmp_path: Path, damage: str) -> None:
    whole = TINY.fetch(tmp_path)
    weights = (whole.path / "model.safetensors").read_bytes()
    if damage == "truncate":
        (whole.path / "model.safetensors").write_bytes(weights[:1000])
    elif damage == "delete":
        (whole.path / "tokenizer.json").unlink()
    else:
        (whole.path / "manifest.json").write_text("[")
    again = TINY.fetch(tmp_path)
    assert (again.path / "model.safetensors").read_bytes() == weights
    assert PairTokenizer(again).count(["the"]) == [1]


def _fetch_digest(cache_dir: Path) -> str:
    return TINY.fetch(cache_dir).digest


def test_two_processes_may_fetch_at_the_same_time(tmp_path: Path) -> None:
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        digests = list(pool.map(_fetch_digest, [tmp_path, tmp_path]))
    assert digests[0] == digests[1]
    assert not list(tmp_path.glob("*.partial"))


def test_invalid_sizes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"hidden=32 is not a multiple of model\.heads=3"):
        replace(TINY, heads=3).fetch(tmp_path)
    with pytest.raises(ModelError, match=r"vocab_size.*too small"):
        replace(TINY, vocab_size=500).fetch(tmp_path)


def test_local_model(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(folder.parent)
    model = LocalModel(name=None, path=folder.name, max_length=None).fetch(tmp_path)
    assert (model.path, model.name, model.max_length) == (folder, folder.name, 128)
    assert (
        LocalModel(name="mine", path=f" {folder} ", max_length=64).fetch(tmp_path).max_length == 64
    )
    assert model.caveat is None


@pytest.mark.parametrize("path", [None, "", "  "])
def test_error_for_a_local_model_without_a_path_says_what_to_give(
    path: str | None, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=r"give model\.path=DIR"):
        LocalModel(name=None, path=path, max_length=None).fetch(tmp_path)


def test_each_kind_of_damaged_folder_has_its_own_error_message(
    folder: Path, tmp_path: Path
) -> None:
    def fetch() -> ModelFolder:
        return LocalModel(name=None, path=str(folder), max_length=None).fetch(tmp_path)

    with pytest.raises(ModelError, match="does not exist"):
        LocalModel(name=None, path=str(folder / "no"), max_length=None).fetch(tmp_path)
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    for damaged, message in (
        (content[:-1], "not a complete safetensors file"),
        (content + b"x", "not a complete safetensors file"),
        (content[:300], "not a complete safetensors file"),
        (b"", "not a complete safetensors file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        (content[:8] + b"x" + content[9:], "invalid JSON in header"),
        ((2).to_bytes(8, "little") + b"{}", "contains no tensors"),
    ):
        weights.write_bytes(damaged)
        with pytest.raises(ModelError, match=message):
            fetch()
    weights.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ModelError, match=r"model\.safetensors missing"):
        fetch()
    weights.write_bytes(content)
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be read as JSON"):
        fetch()


def edit(file: Path, **changes: object) -> None:
    """Change keys of a JSON file, and create the file if it does not exist."""
    document = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**document, **changes}))


def test_maximum_length(folder: Path, tmp_path: Path) -> None:
    def maximum(requested: int | None = None) -> int:
        return read_folder(folder, "m", requested).max_length

    assert maximum() == 128
    for wrong in (129, 0):
        with pytest.raises(ModelError, match=f"max_length={wrong} does not fit"):
            maximum(wrong)
    edit(folder / "tokenizer_config.json", model_max_length=int(1e30))
    assert maximum() == 128
    edit(folder / "tokenizer_config.json", model_max_length=64)
    assert maximum() == 64
    # The library reads this file only with modules.json; it then overrides the tokenizer's limit
    edit(folder / "sentence_bert_config.json", max_seq_length=100)
    assert maximum() == 64
    saved_by_sentence_transformers(folder)
    edit(folder / "sentence_bert_config.json", max_seq_length=100)
    assert maximum() == 100
    edit(folder / "sentence_bert_config.json", max_seq_length=1000)
    assert maximum() == 128
    roberta = FAMILIES["roberta"].make(tmp_path / "roberta").path
    edit(roberta / "tokenizer_config.json", model_max_length=int(1e30))
    assert read_folder(roberta, "m").max_length == 128  # of 130 positions


def saved_by_sentence_transformers(folder: Path) -> None:
    """Add the files that version 6 of the library writes for a cross-encoder."""
    module = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
    (folder / "modules.json").write_text(json.dumps([module]))
    edit(folder / "config_sentence_transformers.json", model_type="CrossEncoder")
    edit(folder / "sentence_bert_config.json", transformer_task="sequence-classification")


def test_an_unreachable_hub_raises_model_error(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from crossbench.models.sources import HubModel;"
        "HubModel('m', 'cross-encoder/ms-marco-MiniLM-L-6-v2', 'main', None).fetch(Path('.'))"
    )
    unreachable = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    environment = {**os.environ, **unreachable, "PYTHONPATH": str(REPO)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    last_line = done.stderr.strip().splitlines()[-1]
    assert "ModelError: cannot download cross-encoder/ms-marco-MiniLM-L-6-v2" in last_line
    assert "model=local model.path=DIR" in last_line


def test_an_invalid_hub_name_raises_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot download no such/repo/name"):
        HubModel("m", "no such/repo/name", "main", None).fetch(tmp_path)


def test_real_models_are_read(shared: Path, tmp_path: Path) -> None:
    cross = LocalModel(None, str(shared / "models/minilm-l6-dl19"), None).fetch(tmp_path)
    assert (cross.name, cross.max_length) == ("minilm-l6-dl19", 512)
    bi = LocalModel(None, str(shared / "models/all-minilm-l6-v2"), None).fetch(tmp_path)
    assert bi.max_length == 256
    partial = tmp_path / "partial"
    partial.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(cross.path / name, partial)
    (partial / "model.safetensors").write_bytes(
        (cross.path / "model.safetensors").read_bytes()[: 1 << 20]
    )
    with pytest.raises(ModelError, match="not a complete safetensors file"):
        LocalModel(None, str(partial), None).fetch(tmp_path)


def test_the_head_is_scaled_for_other_sizes(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    model = TINY.fetch(tmp_path)
    tokenizer = PairTokenizer(model)
    weights = load_file(model.path / "model.safetensors")
    lists = make_lists(tokenizer, 3, queries=10, passages_per_query=20)
    pairs = [Pair(item.query, passage) for item in lists for passage in item.passages]
    batch = tokenizer.encode_pairs(pairs).batch
    scores = forward(weights, BertShape(1, 32, 2, 64, 8000, 128), batch)
    assert 1.0 < scores.std() < 2.0


def test_every_model_choice_composes_and_is_unique(tmp_path: Path) -> None:
    choices = sorted(file.stem for file in (conf_dir() / "model").glob("*.yaml"))
    required = {"hub": ["model.repo=owner/name"], "local": [f"model.path={tmp_path}"]}
    sources = {}
    for choice in choices:
        overrides = [f"model={choice}", *required.get(choice, ())]
        sources[choice] = plan_of(*overrides, cache_dir=tmp_path).model.build()
    repos = {name: made.repo for name, made in sources.items() if isinstance(made, HubModel)}
    assert repos.pop("hub") == "owner/name"
    assert len(set(repos.values())) == len(repos) == 9
    deeper, base = sources["minilm-l12-seeded"], sources["minilm-l6-seeded"]
    assert deeper == replace(base, name="minilm-l12-seeded", layers=12)
    # crossbench composes the additional models of pool.models itself, with Hydra's rules
    tiny = (
        "{base: minilm-l12-seeded, layers: 1, hidden: 32, heads: 2, intermediate: 64, "
        "vocab_size: 8000, positions: 64}"
    )
    plan = plan_of(f"pool.models={{tiny: {tiny}}}", cache_dir=tmp_path)
    (folder,) = fetch_more_models(plan, "other")
    assert folder.name == "tiny"


def test_error_for_a_hub_model_without_a_repository_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"give model\.repo=OWNER/NAME"):
        HubModel(None, None, "main", None).fetch(tmp_path)
