"""Data sets: lengths of synthetic text, TREC files, the MS MARCO schema, and malformed files."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crossbench.errors import DatasetError
from crossbench.load.datasets import LoadedDataset, MsMarcoDataset, SyntheticDataset, TrecDataset
from crossbench.load.lengths import PASSAGES, QUERIES, length_warnings, summarise
from crossbench.models.folder import ModelFolder
from crossbench.models.reading import read_folder
from crossbench.models.tokenizer import PairTokenizer
from tests.helpers.datasets import ROWS, from_conf, load_msmarco, load_trec
from tests.helpers.places import REPO

CONF = REPO / "conf/dataset"


@pytest.fixture(scope="module")
def tokenizer(seeded_model: ModelFolder) -> PairTokenizer:
    return PairTokenizer(seeded_model)


@pytest.fixture(scope="module", params=["seeded", "bert"])
def any_tokenizer(
    request: pytest.FixtureRequest, seeded_model: ModelFolder, tmp_path_factory: Any
) -> PairTokenizer:
    if request.param == "seeded":
        return PairTokenizer(seeded_model)
    shared = request.getfixturevalue("shared")
    path = tmp_path_factory.mktemp("bert")
    shutil.copy(seeded_model.path / "config.json", path)
    shutil.copy(shared / "models/bert-tokenizer/tokenizer.json", path)
    (path / "model.safetensors").hardlink_to(seeded_model.path / "model.safetensors")
    return PairTokenizer(read_folder(path, "bert", 512))


def test_synthetic_lengths_follow_ms_marco(any_tokenizer: PairTokenizer) -> None:
    loaded: LoadedDataset = from_conf("synthetic").load(any_tokenizer, 42)
    queries = [item.query for item in loaded.lists]
    passages = [passage for item in loaded.lists for passage in item.passages]
    for texts, table in ((queries, QUERIES), (passages, PASSAGES)):
        sent = summarise(any_tokenizer.count(texts))
        assert sent.quantiles == pytest.approx(table.quantiles, rel=0.1)
        assert sent.mean == pytest.approx(table.mean, rel=0.1)
        assert sent.largest == table.largest
    assert len(set(queries)) == len(queries)
    assert len(set(passages)) == len(passages)
    tokens = any_tokenizer.count(passages).sum()
    per_word = tokens / sum(len(passage.split()) for passage in passages)
    assert 1.15 < per_word < 1.45
    # The lengths must also be representative if a measurement ends early
    early = summarise(any_tokenizer.count([p for item in loaded.lists[:5] for p in item.passages]))
    assert early.mean == pytest.approx(PASSAGES.mean, rel=0.05)
    assert not length_warnings(summarise(any_tokenizer.count(queries)), early)


def test_synthetic_is_deterministic(tokenizer: PairTokenizer, seeded_model: ModelFolder) -> None:
    data = SyntheticDataset("synthetic", 7, 10, passage_tokens=None)
    first = data.load(tokenizer, 1)
    assert first == data.load(PairTokenizer(seeded_model), 1)
    assert first.digest != data.load(tokenizer, 2).digest
    assert [len(item.passages) for item in first.lists] == [10] * 7
    assert first.lists[0].relevance is None
    one = SyntheticDataset("synthetic", 1, 1, passage_tokens=None).load(tokenizer, 1)
    assert tokenizer.count([one.lists[0].query, one.lists[0].passages[0]]).tolist() == [7, 71]
    with pytest.raises(DatasetError, match=r"dataset\.queries=0"):
        SyntheticDataset("synthetic", 0, 1, passage_tokens=None).load(tokenizer, 1)


def test_synthetic_passages_of_given_lengths(tokenizer: PairTokenizer) -> None:
    loaded = SyntheticDataset("synthetic", 3, 4, passage_tokens=[20, 400]).load(tokenizer, 0)
    for entry in loaded.lists:
        assert tokenizer.count(entry.passages).tolist() == [20, 400, 20, 400]
    for wrong in ([], [20, 0]):
        with pytest.raises(DatasetError, match=r"dataset\.passage_tokens=\["):
            SyntheticDataset("synthetic", 3, 4, passage_tokens=wrong).load(tokenizer, 0)


def test_synthetic_lengths_are_exact_for_a_tokenizer_with_other_counts(
    seeded_model: ModelFolder, tmp_path: Path
) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        ["the cat sat on the mat and the dog ate"] * 3,
        trainers.BpeTrainer(
            vocab_size=300,
            special_tokens=["[PAD]"],
            initial_alphabet=alphabet,
            show_progress=False,
        ),
    )
    bpe.save(str(tmp_path / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).hardlink_to(seeded_model.path / name)
    tokenizer = PairTokenizer(read_folder(tmp_path, "bpe", 512))
    loaded = SyntheticDataset("synthetic", 10, 20, passage_tokens=None).load(tokenizer, 0)
    sent = summarise(tokenizer.count([p for item in loaded.lists for p in item.passages]))
    assert sent.mean == pytest.approx(PASSAGES.mean, rel=0.1)


def test_unusual_lengths_give_a_warning() -> None:
    usual = summarise([7] * 10), summarise([82] * 5 + [71] * 6)
    assert length_warnings(*usual) == []
    long = length_warnings(summarise([7]), summarise([300, 310]))
    assert len(long) == 1
    assert "Passages have 305.0 tokens on average" in long[0]
    with pytest.raises(ValueError, match="no lengths"):
        summarise([])


@pytest.fixture
def trec(tmp_path: Path) -> Path:
    (tmp_path / "queries.tsv").write_text("q1\tfirst query\nq2\tsecond query\nq3\tnot ranked\n")
    (tmp_path / "collection.tsv").write_text(
        "d1\tone\nd2\ttwo\tand a tab\n\nd3\tthrée\u2028 same\n"
    )
    (tmp_path / "run.bm25.txt").write_text("q1 Q0 d3 2 8.5 x\nq1 Q0 d1 1 9.5 x\nq2 Q0 d2 1 3.0 x\n")
    (tmp_path / "qrels.txt").write_text("q1 0 d1 3\nq1 0 d2 1\nq2 0 d2 0\nq2 0 d9 2\n")
    return tmp_path


def test_trec_candidates_in_the_order_of_the_run_with_judgements(
    trec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = load_trec(trec).lists
    assert (first.query_id, first.query, first.passage_ids) == ("q1", "first query", ("d1", "d3"))
    assert first.passages == ("one", "thrée\u2028 same")
    assert first.relevance == (3, None)
    assert second.passages == ("two\tand a tab",)
    assert second.relevance == (0,)
    monkeypatch.chdir(trec.parent)
    assert load_trec(f" {trec.name} ").digest == load_trec(trec).digest
    assert len(load_trec(trec, limit=1).lists) == 1


def test_trec_with_only_judgements_or_only_a_run(trec: Path) -> None:
    (trec / "qrels.txt").rename(trec / "elsewhere")
    assert load_trec(trec).lists[0].relevance is None
    (trec / "elsewhere").rename(trec / "qrels.txt")
    (trec / "run.bm25.txt").unlink()
    first, second = load_trec(trec).lists
    assert (first.passage_ids, first.relevance) == (("d1", "d2"), (3, 1))
    assert (second.passage_ids, second.relevance) == (("d2",), (0,))
    (trec / "top.tsv").write_text("q1\td2\t1\nq1\td1\t2\n")
    (named,) = load_trec(trec, run="top.tsv").lists
    assert named.passage_ids == ("d2", "d1")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("queries.tsv", "q1\tfirst\nq2 without a tab\n", r"queries\.tsv:2: expected"),
        ("queries.tsv", "", r"queries\.tsv is empty"),
        ("queries.tsv", "q9\tunknown\n", "no query with passages"),
        ("collection.tsv", "d1\t \n", r"collection\.tsv:1: expected"),
        ("collection.tsv", "d1\tone\nd2\ttwo\n", "ranks passage d3 for query q1"),
        ("run.bm25.txt", "q1 Q0 d1 1 9.5 x\nq1 Q0\n", r"run\.bm25\.txt:2: expected"),
        ("run.bm25.txt", "q1 Q0 d1 one 9.5 x\n", r"run\.bm25\.txt:1: the rank 'one'"),
        ("qrels.txt", "q1 0 d1\n", r"qrels\.txt:1: expected"),
        ("qrels.txt", "q1 0 d1 high\n", r"qrels\.txt:1: the grade 'high'"),
        ("run.second.txt", "q1 Q0 d1 1 9.5 x\n", "several run files"),
    ],
)
def test_errors_name_malformed_trec_files(trec: Path, name: str, text: str, message: str) -> None:
    (trec / name).write_text(text)
    with pytest.raises(DatasetError, match=message):
        load_trec(trec)


def test_errors_name_missing_trec_files(trec: Path) -> None:
    with pytest.raises(DatasetError, match=r"give dataset\.path=DIR"):
        load_trec(None)
    with pytest.raises(DatasetError, match="does not exist"):
        load_trec(trec / "nowhere")
    with pytest.raises(DatasetError, match="is a file"):
        load_trec(trec / "qrels.txt")
    with pytest.raises(DatasetError, match=r"dataset\.run=no: there is no such file"):
        load_trec(trec, run="no")
    with pytest.raises(DatasetError, match=r"dataset\.limit=0"):
        load_trec(trec, limit=0)
    (trec / "collection.tsv").write_bytes(b"d1\t\xff\xfe\n")
    with pytest.raises(DatasetError, match="cannot be read as UTF-8"):
        load_trec(trec)
    (trec / "collection.tsv").unlink()
    with pytest.raises(DatasetError, match="no collection file"):
        load_trec(trec)
    (trec / "qrels.txt").unlink()
    (trec / "run.bm25.txt").unlink()
    (trec / "collection.tsv").write_text("d1\tone\n")
    with pytest.raises(DatasetError, match="neither a run nor a qrels file"):
        load_trec(trec)


def test_ms_marco_from_parquet(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "validation-00000-of-00001.parquet")
    pq.write_table(pa.Table.from_pylist(ROWS[:1]), tmp_path / "test-00000-of-00001.parquet")
    loaded = load_msmarco(tmp_path)
    assert len(loaded.lists) == 4
    assert loaded.lists[0].query_id == "0"
    assert loaded.lists[0].passages == ("first 0", "second")
    assert loaded.lists[0].relevance == (0, 1)
    assert len(load_msmarco(tmp_path / "test-00000-of-00001.parquet").lists) == 1
    assert len(load_msmarco(tmp_path, limit=2).lists) == 2


def test_errors_name_malformed_ms_marco_files(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no parquet file"):
        load_msmarco(tmp_path)
    path = tmp_path / "a.parquet"
    path.write_text("not parquet")
    with pytest.raises(DatasetError, match=r"a\.parquet cannot be read as parquet"):
        load_msmarco(path)
    pq.write_table(pa.table({"text": ["a"]}), path)
    with pytest.raises(DatasetError, match="schema of microsoft/ms_marco"):
        load_msmarco(path)
    pq.write_table(pa.Table.from_pylist(ROWS).slice(0, 0), path)
    with pytest.raises(DatasetError, match="no query with passages"):
        load_msmarco(path)


def test_the_error_of_a_failed_download_says_what_to_do(tmp_path: Path) -> None:
    code = (
        "from crossbench.load.datasets import MsMarcoDataset;"
        "MsMarcoDataset('msmarco', None, 'microsoft/ms_marco', 'v1.1', 'test', 1).load(None, 0)"
    )
    repo = str(REPO)
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path), "PYTHONPATH": repo}
    offline = {"HF_HUB_OFFLINE": "1"}  # prevents retries that take minutes
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **nowhere, **offline},
        capture_output=True,
        text=True,
        timeout=100,
    )
    last = done.stderr.strip().splitlines()[-1]
    expected = "cannot download" if importlib.util.find_spec("datasets") else "crossbench[hub]"
    assert "DatasetError" in last
    assert expected in last
    assert "dataset.path=FILE" in last


def test_real_data(shared: Path) -> None:
    real = load_trec(shared / "data/msmarco-dl19")
    assert (len(real.lists), {len(item.passages) for item in real.lists}) == (43, {100})
    assert {grade for item in real.lists for grade in item.relevance or ()} == {None, 0, 1, 2, 3}
    same = load_msmarco(shared / "data/ms_marco-schema", limit=None)
    assert [item.query for item in same.lists] == [item.query for item in real.lists]


def test_datasets_compare_by_value() -> None:
    trec = from_conf("trec", path="here")
    assert replace(trec, limit=3) == from_conf("trec", path="here", limit=3)
    assert isinstance(from_conf("msmarco"), MsMarcoDataset)
    assert isinstance(trec, TrecDataset)
