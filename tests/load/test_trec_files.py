"""Folders with files of MS MARCO, TREC and BEIR, as found in practice, and what is skipped."""

from __future__ import annotations

import bz2
import dataclasses
import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from crossbench.errors import DatasetError
from crossbench.load.datasets import LoadedDataset
from crossbench.load.lengths import summarise
from crossbench.load.stop import End
from crossbench.quality.check import ServedScores, evaluate_scores
from crossbench.report.cell import write_cell_report
from crossbench.results import save_result
from crossbench.runner.result import CellData, Measured, to_result
from crossbench.serving import inference_pb2 as pb
from crossbench.settings.cell_config import CellConfig
from crossbench.types import QueryPassages
from tests.helpers.datasets import expect_notes, load_trec
from tests.helpers.plans import plan_of

QUERIES = "q1\tfirst query\nq2\tsecond query\n"
COLLECTION = "d1\tone\nd2\ttwo\nd3\tthree\nd4\tfour\n"
RUN = "q1 Q0 d1 1 9.5 x\nq1 Q0 d3 2 8.5 x\nq2 Q0 d2 1 3.0 x\n"
QRELS = "q1 0 d1 3\nq1 0 d2 1\nq2 0 d2 1\n"


def write_folder(path: Path, **changes: str | bytes | None) -> Path:
    """Write a valid folder with some files replaced; None omits a file."""
    files: dict[str, str | bytes | None] = {
        "queries_tsv": QUERIES,
        "collection_tsv": COLLECTION,
        "run_txt": RUN,
        "qrels_txt": QRELS,
        **changes,
    }
    path.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        file = path / name.replace("_", ".")
        file.unlink(missing_ok=True)
        if text is not None:
            file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def ids(loaded: LoadedDataset) -> dict[str, tuple[str, ...]]:
    return {entry.query_id: entry.passage_ids for entry in loaded.lists}


def test_valid_files_give_no_notes(tmp_path: Path, shared: Path) -> None:
    loaded = load_trec(write_folder(tmp_path))
    expect_notes(loaded)
    assert loaded.files == ("queries.tsv", "collection.tsv", "run.txt", "qrels.txt")
    assert load_trec(shared / "data/msmarco-dl19").warnings == ()


def test_a_run_is_ordered_as_in_trec_eval(tmp_path: Path) -> None:
    """The oracle is trec_eval: 1 / a passage's reciprocal rank is its rank."""
    import pytrec_eval

    rng = np.random.default_rng(0)
    names = [f"d{number}" for number in rng.permutation(40)]
    # Ties, differences too small for 32 bits, different magnitudes; the ranks are random
    scores = rng.choice([1.5, -2.0, 1e9, 100.0, 100.000000001, 0.1, 1e300, 1e299, -1e-50], 40)
    run = "".join(
        f"q1 Q0 {name} {rng.integers(99)} {score!r} x\n"
        for name, score in zip(names, scores.tolist(), strict=True)
    )
    given = dict(zip(names, scores.tolist(), strict=True))
    ranks = {}
    for name in names:
        found = pytrec_eval.RelevanceEvaluator({"q1": {name: 1}}, {"recip_rank"})
        ranks[name] = round(1 / found.evaluate({"q1": given})["q1"]["recip_rank"])
    texts = "".join(f"{name}\ttext {name}\n" for name in names)
    loaded = load_trec(write_folder(tmp_path, run_txt=run, collection_tsv=texts, qrels_txt=None))
    assert ids(loaded)["q1"] == tuple(sorted(ranks, key=ranks.__getitem__))


def test_ranks_that_contradict_scores_give_a_note(tmp_path: Path) -> None:
    run = "q1 Q0 d1 2 9.5 x\nq1 Q0 d3 1 8.5 x\nq2 Q0 d2 1 3.0 x\n"
    loaded = load_trec(write_folder(tmp_path, run_txt=run))
    assert ids(loaded)["q1"] == ("d1", "d3")
    expect_notes(loaded, r"run\.txt: ranks and scores disagree for 1 of 2 queries.*trec_eval")

    run = "q1 Q0 d1 1 9.5 x\nq1 Q0 d3 2 9.5 x\nq2 Q0 d2 1 3.0 x\n"
    loaded = load_trec(write_folder(tmp_path, run_txt=run))
    assert ids(loaded)["q1"] == ("d3", "d1")
    expect_notes(loaded, r"the ranks of equal scores .* for 1 of 2 queries.*by descending id")

    # Equal ranks contradict nothing
    run = "q1 Q0 d1 0 9.5 x\nq1 Q0 d3 0 10 x\nq2 Q0 d2 0 inf x\n"
    loaded = load_trec(write_folder(tmp_path, run_txt=run))
    assert ids(loaded)["q1"] == ("d3", "d1")
    expect_notes(loaded)


def test_a_run_with_three_columns_is_ordered_by_rank(tmp_path: Path) -> None:
    run = "qid\tpid\trank\nq1\td4\t10\nq1\td1\t2\nq1\td3\t1\nq2\td2\t1\n"
    loaded = load_trec(write_folder(tmp_path, run_txt=run))
    assert ids(loaded) == {"q1": ("d3", "d1", "d4"), "q2": ("d2",)}
    expect_notes(loaded)
    loaded = load_trec(write_folder(tmp_path, run_txt="q1 d4 1\nq1 d1 1\nq1 d3 0\nq2 d2 1\n"))
    assert ids(loaded)["q1"] == ("d3", "d4", "d1")
    expect_notes(
        loaded,
        "several passages have the same rank for 1 of 2 queries. They are in the order of the file",
    )


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("run_txt", "q1 Q0 d1 1 nan x\n", r"run\.txt:1: the score 'nan' is not a number"),
        ("run_txt", "q1 Q0 d1 1 high x\n", r"run\.txt:1: the score 'high' is not a number"),
        ("run_txt", "q1 Q0 d1 1 1_0 x\n", r"run\.txt:1: the score '1_0'"),
        ("run_txt", "q1 Q0 d1 1_0 1 x\n", r"run\.txt:1: the rank '1_0'"),
        ("run_txt", "q1 Q0 d1 1 9 x\nq1 d3 2\n", r"run\.txt:2: expected"),
        ("run_txt", "q1 Q0 d1 1 9.5\n", r"run\.txt:1: expected"),
        (
            "run_txt",
            "q1 Q0 d1 1 9 x\nq1 Q0 d3 2 8 x\nq1 Q0 d1 3 7 x\n",
            r"run\.txt:3: passage d1 of query q1 has another rank or score in line 1",
        ),
        ("run_txt", "q1\td1\t1\nq1\td1\t2\n", r"run\.txt:2: passage d1 .* in line 1"),
        ("run_txt", "q1 Q0 d1 1 9 x\n\xe9 Q0\n".encode("latin-1"), r"run\.txt:2: .*0xe9 at"),
        (
            "qrels_txt",
            "q1 0 d1 3\nq2 0 d2 1\nq1 0 d1 2\n",
            r"qrels\.txt:3: passage d1 of query q1 has the grade 2, but 3 in line 1",
        ),
        ("qrels_txt", "q1 0 d1 0.5\n", r"qrels\.txt:1: the grade '0\.5'"),
        ("qrels_txt", "q1 0 d1 true\n", r"qrels\.txt:1: the grade 'true'"),
        (
            "queries_tsv",
            f"{QUERIES}q1\tanother query\n",
            r"queries\.tsv:3: q1 has a different text in line 1",
        ),
        (
            "collection_tsv",
            f"{COLLECTION}d3\tother\n",
            r"collection\.tsv:5: d3 has a different text in line 3",
        ),
        ("queries_tsv", "q1\t\nq2\tsecond\n", r"queries\.tsv:1: expected 'id<TAB>text'"),
        ("collection_tsv", "d1\t \nd2\ttwo\nd3\tthree\n", r"collection\.tsv:1: expected"),
        (
            "collection_tsv",
            b"d1\tone\nd2\ttwo\nd3\tthr\xe9\xe9\n",
            r"collection\.tsv:3: cannot be read as UTF-8: byte 0xe9 at position 7 of the line",
        ),
        ("queries_tsv", b"q1\tna\xefve\nq2\tb\n", r"queries\.tsv:1: .*byte 0xef at position 6"),
        ("collection_tsv", COLLECTION.encode("utf-16"), r"collection\.tsv .*UTF-16"),
        ("queries_tsv", QUERIES.encode("utf-16-le"), r"queries\.tsv .*UTF-16"),
        ("collection_tsv", b"PK\x03\x04rest", r"collection\.tsv is a zip archive: unpack it"),
        ("run_txt", "\n \n", r"run\.txt is empty"),
        ("run_txt", "qid\tpid\trank\n", r"run\.txt is empty"),
        ("qrels_txt", "query-id\tcorpus-id\tscore\n", r"qrels\.txt is empty"),
        ("queries_tsv", "first\nsecond\n", r"no query with .*queries\.tsv \(line 1, expected"),
        (
            "queries_tsv",
            "q1\tone\rq2\ttwo\r",
            r"queries\.tsv separates lines with carriage",
        ),
        ("collection_tsv", "d1 one\nd3 three\nd2 two\n", r"collection\.tsv.*expected 'id<TAB>"),
    ],
)
def test_required_rows_that_are_malformed_are_rejected(
    tmp_path: Path, name: str, text: str | bytes, message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        load_trec(write_folder(tmp_path, **{name: text}))


def test_malformed_rows_that_are_not_required_are_skipped(tmp_path: Path) -> None:
    sound = load_trec(write_folder(tmp_path))
    # Rows that are not required: blank, without tab, without id, not UTF-8, with two texts
    rows = b"d8\t\nno tab\n\tno id\nd9\t\xff\nd7\ta\nd7\tb\n"
    loaded = load_trec(write_folder(tmp_path, collection_tsv=COLLECTION.encode() + rows))
    assert loaded.digest == sound.digest
    expect_notes(
        loaded,
        r"collection\.tsv: skipped 4 rows without a usable identifier or text.*line 5, expected",
    )
    loaded = load_trec(
        write_folder(tmp_path, queries_tsv=f"q8\t\n{QUERIES}q9\n", collection_tsv=COLLECTION)
    )
    assert loaded.digest == sound.digest
    expect_notes(loaded, r"queries\.tsv: skipped 2 rows .*line 1")


def test_repeated_rows_are_skipped_and_counted(tmp_path: Path) -> None:
    sound = load_trec(write_folder(tmp_path))
    twice = write_folder(
        tmp_path,
        queries_tsv=QUERIES * 2,
        collection_tsv=COLLECTION * 2,
        run_txt=RUN * 2,
        qrels_txt=QRELS * 2,
    )
    loaded = load_trec(twice)
    assert loaded.digest == sound.digest
    expect_notes(
        loaded,
        r"qrels\.txt: skipped 3 repeated rows",
        r"run\.txt: skipped 3 repeated rows",
        r"queries\.tsv: skipped 2 repeated rows",
        r"collection\.tsv: skipped 3 repeated rows",
    )


def test_queries_that_cannot_be_sent_give_a_note(tmp_path: Path) -> None:
    loaded = load_trec(write_folder(tmp_path, run_txt="q1 Q0 d1 1 9.5 x\nq7 Q0 d1 1 9 x\n"))
    assert ids(loaded) == {"q1": ("d1",)}
    assert loaded.judged_left_out == 1
    expect_notes(
        loaded,
        r"1 of 2 queries in run\.txt has no text in queries\.tsv",
        r"1 of 2 queries in queries\.tsv has no candidates in run\.txt",
        r"1 of 2 queries with a relevant passage in qrels\.txt.*trec_eval.*-c",
    )


def test_gaps_in_the_judgements_give_a_note(tmp_path: Path) -> None:
    loaded = load_trec(write_folder(tmp_path, qrels_txt="q1 0 d1 0\nq2 0 d2 -1\n"))
    assert [entry.relevance for entry in loaded.lists] == [(0, None), (-1,)]
    expect_notes(loaded, r"qrels\.txt contains no grade above 0")
    loaded = load_trec(write_folder(tmp_path, qrels_txt="q1 0 d1 1.0\nq2 0 d2 -2\n"))
    assert [entry.relevance for entry in loaded.lists] == [(1, None), (-2,)]
    expect_notes(loaded, r"1 query in qrels\.txt has no grade above 0.*trec_eval counts them as 0")
    loaded = load_trec(write_folder(tmp_path, qrels_txt="q1 0 x1 1\nq2 0 x2 1\n"))
    expect_notes(loaded, r"qrels\.txt judges none of the candidates")
    loaded = load_trec(write_folder(tmp_path, run_txt="q1 Q0 d1 1 9 x\n", qrels_txt="q2 0 d2 1\n"))
    expect_notes(
        loaded, "has no candidates", r"None of the 1 query .*nDCG@10 and MRR@10 are undefined"
    )


def test_judgements_of_other_queries_are_rejected(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, qrels_txt="007 0 d1 3\n008 0 d1 1\n")
    with pytest.raises(
        DatasetError, match=r"none of the 2 queries judged.*\(007, 008\).*\(q1, q2\)"
    ):
        load_trec(folder)
    assert load_trec(folder, qrels="none").lists[0].relevance is None
    with pytest.raises(DatasetError, match=r"no query with passages: none of the 2 queries.*\(007"):
        load_trec(folder, run="none")
    with pytest.raises(
        DatasetError, match=r"no query with passages: .* contains none of the passages"
    ):
        load_trec(write_folder(tmp_path, run_txt=None, qrels_txt="q1 0 x1 1\n"))


def test_judged_passages_without_a_text_are_counted(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, run_txt=None, collection_tsv="d1\tone\nd2\t\n")
    loaded = load_trec(folder)
    assert ids(loaded) == {"q1": ("d1",)}
    assert loaded.lists[0].other_grades == (1,)
    expect_notes(
        loaded, "2 of 3 judged passages have no text", "1 of 2 queries with a relevant passage"
    )


def test_files_are_found_by_name_and_content(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, qrels_txt=None, qrels_dev_small_tsv=QRELS.replace(" ", "\t"))
    digest = load_trec(folder).digest
    junk = {
        "run.sh": "#!/bin/bash\n",
        "run.txt~": RUN,
        "run.txt.bak": RUN,
        "._run.txt": "\x00\x05\x16\x07",
        ".DS_Store": "\x00",
        "README.txt": "read me\n",
        "runtime.txt": "12 s\n",
        "run_notes.txt": "made with BM25\n",
        "qrels_readme.txt": "judged by two people, each alone\n",
        "collection.tsv.md5": "0  collection.tsv\n",
        "queries.py": "print()\n",
    }
    for name, text in junk.items():
        (folder / name).write_text(text)
    for name in ("runs", "run.old.txt", "qrels", "queries"):
        (folder / name).mkdir()
    loaded = load_trec(folder)
    assert loaded.digest == digest
    assert loaded.files[-2:] == ("run.txt", "qrels.dev.small.tsv")
    expect_notes(loaded, r"run_notes\.txt was not read", r"qrels_readme\.txt was not read")
    # If the name has no known suffix, the content decides
    (folder / "run.txt").rename(folder / "run.bm25-default")
    (folder / "run_notes.txt").unlink()
    assert load_trec(folder).digest == digest
    (folder / "run.other.tsv").write_text(RUN)
    (folder / "run.third.trec").write_text(RUN)
    with pytest.raises(
        DatasetError, match=r"several run files \(run\.other\.tsv, run\.third\.trec"
    ):
        load_trec(folder)
    (folder / "collection.tsv").rename(folder / "collection_old.csv")
    with pytest.raises(
        DatasetError, match=r"no collection file.*the folder contains README\.txt, collection"
    ):
        load_trec(folder)


def compress(path: Path, ending: str) -> Path:
    """Replace the file by its compressed form."""
    data, packed = path.read_bytes(), path.with_name(path.name + ending)
    if ending == ".zst":
        with pa.output_stream(str(packed), compression="zstd") as stream:
            stream.write(data)
    else:
        packed.write_bytes({".gz": gzip.compress, ".bz2": bz2.compress}[ending](data))
    path.unlink()
    return packed


@pytest.mark.parametrize("ending", [".gz", ".zst", ".bz2"])
def test_compressed_files_are_read(tmp_path: Path, ending: str) -> None:
    plain = load_trec(write_folder(tmp_path / "plain"))
    folder = write_folder(tmp_path / "packed")
    for path in list(folder.iterdir()):
        compress(path, ending)
    loaded = load_trec(folder)
    assert loaded.digest == plain.digest
    assert loaded.files[2] == f"run.txt{ending}"
    expect_notes(loaded)
    assert load_trec(folder, run=f"run.txt{ending}").digest == plain.digest
    # If both forms exist, the uncompressed one is read
    (folder / "run.txt").write_text(RUN)
    expect_notes(
        load_trec(folder), rf"run\.txt was read, its compressed copy run\.txt{ending} was not"
    )
    # Browsers unpack files without renaming them, and other tools compress without renaming
    (folder / f"run.txt{ending}").rename(folder / "run.txt")
    (folder / f"collection.tsv{ending}").write_text(COLLECTION)
    assert load_trec(folder).digest == plain.digest
    (folder / "run.txt").write_bytes((folder / "run.txt").read_bytes() * 2)  # two gzip members
    assert load_trec(folder).digest == plain.digest


@pytest.mark.parametrize("ending", [".gz", ".zst", ".bz2"])
def test_errors_name_damaged_compressed_files(tmp_path: Path, ending: str) -> None:
    lines = "".join(f"x{number}\t{hash(str(number))}\n" for number in range(20_000))
    folder = write_folder(tmp_path, collection_tsv=COLLECTION + lines)
    packed = compress(folder / "collection.tsv", ending)
    whole = packed.read_bytes()
    middle = len(whole) // 2
    for broken in (
        whole[:-6],
        whole[:middle],
        whole[:middle] + bytes(500) + whole[middle + 500 :],
    ):
        packed.write_bytes(broken)
        with pytest.raises(
            DatasetError, match=rf"collection\.tsv{ending} cannot be read .*damaged"
        ):
            load_trec(folder)
    packed.write_bytes(b"")
    with pytest.raises(DatasetError, match=rf"collection\.tsv{ending} is empty"):
        load_trec(folder)
    packed.write_bytes(b"\x1f\x00\x80\x90")
    with pytest.raises(DatasetError, match=r"collection\.tsv.*UTF-16 or binary"):
        load_trec(folder)


def beir(folder: Path) -> Path:
    """Write the texts of write_folder() in BEIR's layout, with identifiers as JSON numbers."""
    (folder / "qrels").mkdir(parents=True)
    corpus: list[dict[str, Any]] = [
        {"_id": "d1", "title": "One", "text": "one", "metadata": {}},
        {"_id": 2, "title": "", "text": "two"},
        {"_id": "d3", "text": "thr\u00e9e"},
        {"_id": "d4", "title": "nobody asks", "text": None},
        {"_id": "d5", "title": "Title alone", "text": ""},
    ]
    queries = [{"_id": "q1", "text": "first query", "metadata": {}}, {"_id": 7, "text": "second"}]
    for name, rows in (("corpus", corpus), ("queries", queries)):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text)
    head = "query-id\tcorpus-id\tscore\n"
    (folder / "qrels/test.tsv").write_text(f"{head}q1\td1\t2\nq1\td3\t0\n7\t2\t1\n7\td5\t0\n")
    (folder / "qrels/dev.tsv").write_text(f"{head}q1\td3\t1\n")
    return folder


def test_beirs_layout(tmp_path: Path) -> None:
    folder = beir(tmp_path)
    loaded = load_trec(folder)
    assert ids(loaded) == {"q1": ("d1", "d3"), "7": ("2", "d5")}
    first, second = loaded.lists
    assert first.passages == ("One one", "thrée")
    assert second.passages == ("two", "Title alone")
    assert (first.relevance, second.relevance) == ((2, 0), (1, 0))
    assert loaded.files == ("queries.jsonl", "corpus.jsonl", "qrels/test.tsv")
    expect_notes(loaded)
    expect_notes(load_trec(folder, limit=5))
    dev = load_trec(folder, qrels="qrels/dev.tsv")
    assert ids(dev) == {"q1": ("d3",)}
    assert dev.digest != loaded.digest
    # With a run, and with compressed files
    (folder / "run.trec").write_text("q1 Q0 d3 1 2 x\nq1 Q0 d5 2 1 x\n7 Q0 2 1 1 x\n")
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv"):
        compress(folder / name, ".gz")
    ranked = load_trec(folder)
    assert ids(ranked) == {"q1": ("d3", "d5"), "7": ("2",)}
    assert ranked.lists[0].relevance == (0, None)
    assert ranked.lists[0].other_grades == (2,)
    assert ranked.files[-1] == "qrels/test.tsv.gz"
    for name in ("test.tsv.gz", "dev.tsv"):
        (folder / "qrels" / name).rename(folder / "qrels" / f"my{name}")
    with pytest.raises(DatasetError, match=r"several qrels files \(qrels/mydev\.tsv, qrels/mytest"):
        load_trec(folder)


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("corpus", "{broken", r"corpus\.jsonl:6: the line is not valid JSON .*found '\{broken'"),
        ("corpus", "[1]", r"corpus\.jsonl:6: expected"),
        ("corpus", '{"id": "d9", "text": "a"}', r'corpus\.jsonl:6: expected \{"_id"'),
        ("corpus", '{"_id": "d1", "text": "other"}', r"corpus\.jsonl:6: d1 has a different text"),
        ("queries", '{"_id": "q1", "text": "other"}', r"queries\.jsonl:3: q1 has a different text"),
    ],
)
def test_errors_name_malformed_lines_of_beir_files(
    tmp_path: Path, name: str, line: str, message: str
) -> None:
    folder = beir(tmp_path)
    with (folder / f"{name}.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DatasetError, match=message):
        load_trec(folder)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"_id": "d1", "text": ["a"]}, r"corpus\.jsonl:1: text is not text"),
        ({"_id": "d1", "text": None}, r"corpus\.jsonl:1: the text is empty"),
        (
            {"_id": "d1", "text": "\ud83d"},
            r"corpus\.jsonl:1: .* an unpaired surrogate",
        ),
        ({"_id": True, "text": "one"}, "ranks passage d1"),
    ],
)
def test_unusable_texts_are_rejected_if_a_run_requires_them(
    tmp_path: Path, row: dict[str, Any], message: str
) -> None:
    write_folder(tmp_path, collection_tsv=None, run_txt="q1 Q0 d1 1 1 x\n")
    (tmp_path / "corpus.jsonl").write_text(json.dumps(row) + '\n{"_id": "d2", "text": "two"}\n')
    with pytest.raises(DatasetError, match=message):
        load_trec(tmp_path)
    (tmp_path / "run.txt").write_text("q1 Q0 d2 1 1 x\nq2 Q0 d2 1 1 x\n")
    expect_notes(load_trec(tmp_path), r"corpus\.jsonl: skipped 1 row without a usable")


def test_line_ends_and_surrounding_whitespace_change_nothing(tmp_path: Path) -> None:
    sound = load_trec(write_folder(tmp_path / "sound"))
    bom = b"\xef\xbb\xbf"
    folder = write_folder(
        tmp_path / "odd",
        queries_tsv=bom + b"qid\tquery\n" + QUERIES.replace("\n", "\t \r\n").encode(),
        collection_tsv=b"pid\tpassage\r\n" + bom + COLLECTION.replace("\n", "\r\n\r\n").encode(),
        run_txt=bom + RUN.replace(" ", "\t").replace("\n", "\t\r\n").encode(),
        qrels_txt=b"qid\titer\tdocid\trel\n" + QRELS.replace("\n", "  \r\n").rstrip().encode(),
    )
    link = tmp_path / "link"
    link.symlink_to(folder)
    for path in (folder, link, f"{link}/"):
        loaded = load_trec(path)
        assert loaded.digest == sound.digest
        expect_notes(loaded)
    # Quotes and later tabs are text; identifiers are not numbers and may contain U+00A0
    rows = '01\t"a ""b"" c"\n1\u3000x\tother\tand a tab\n'
    named = write_folder(
        tmp_path / "named",
        collection_tsv=rows,
        run_txt="q1 Q0 01 1 2 x\nq2 Q0 1\u3000x 1 2 x\n",
        qrels_txt="q1 0 01 1\nq2 0 1\u3000x 1\n",
    )
    assert [entry.passages for entry in load_trec(named).lists] == [
        ('"a ""b"" c"',),
        ("other\tand a tab",),
    ]


def test_the_digest_depends_on_what_is_sent(tmp_path: Path) -> None:
    digests = {load_trec(write_folder(tmp_path)).digest}
    changed = [
        {"queries_tsv": QUERIES.replace("first", "1st")},
        {"collection_tsv": COLLECTION.replace("three", "3")},
        {"run_txt": RUN.replace("9.5", "7.5")},
        {"qrels_txt": QRELS.replace("d1 3", "d1 2")},
        {"qrels_txt": QRELS.replace("d2 1", "d2 2", 1)},
    ]
    digests |= {load_trec(write_folder(tmp_path, **change)).digest for change in changed}
    assert len(digests) == len(changed) + 1
    # Texts that no run requires do not change the digest
    more = write_folder(tmp_path, collection_tsv=f"{COLLECTION}d9\tnine\n")
    assert load_trec(more).digest in digests


def test_only_texts_that_are_sent_stay_in_memory(tmp_path: Path) -> None:
    """MS MARCO's collection has 3 GB of text: with a limit, only few texts are kept."""
    code = (
        "import sys, resource; from pathlib import Path;"
        "from crossbench.load.trec import read_trec;"
        "a = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "d = read_trec(Path(sys.argv[1]), None, None, None, None, 1);"
        "b = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "print(len(d.lists), (b - a) * (1 if sys.platform == 'darwin' else 1024) / 1e6)"
    )
    words = "word " * 2000
    texts = "".join(f"d{number}\t{words}{number}\n" for number in range(8000))  # 80 MB
    rows = "".join(f"q2 Q0 d{number} 1 {number} x\n" for number in range(8000))
    folder = write_folder(tmp_path, collection_tsv=texts, run_txt="q1 Q0 d5 1 1 x\n" + rows)
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True
    )
    lists, held_mb = done.stdout.split()
    assert (lists, float(held_mb) < 40) == ("1", True), done.stdout


def test_notes_about_skipped_data_appear_in_the_report(tmp_path: Path) -> None:
    loaded = load_trec(write_folder(tmp_path / "data", run_txt="q1 Q0 d1 1 9.5 x\n"))
    lengths = summarise([7])
    info = pb.ServerInfo(models=[pb.ModelInfo(name="m", backend="noop", quant="fp32")])
    config = CellConfig({"backend": {"name": "noop"}, "quant": {"name": "fp32"}, "load": {}})
    plan = dataclasses.replace(plan_of(cache_dir=tmp_path), config=config)
    end = End.INTERRUPTED
    measured = Measured([], {}, info, {}, "interrupted", False, "", {}, end, "", None, ())
    result = to_result(plan, "now", "", CellData(loaded, lengths, lengths), measured)
    save_result(result, tmp_path)
    report = write_cell_report(tmp_path).read_text()
    assert "**Note:** Data set: 1 of 2 queries with a relevant passage in qrels.txt" in report
    assert "queries.tsv, collection.tsv, run.txt, qrels.txt" in report


def quality_of(
    relevance: tuple[int | None, ...], *, reverse: bool = False, **changes: Any
) -> dict[str, Any]:
    """Return the summary for 12 lists with these grades, in the reference's order or reversed."""
    size = len(relevance)
    lists = tuple(
        QueryPassages(f"q{n}", "q", tuple(map(str, range(size))), ("p",) * size, relevance)
        for n in range(12)
    )
    scores = tuple(np.arange(size, dtype=np.float32) for _ in lists)
    served = tuple(-item if reverse else item for item in scores)
    return dict(
        evaluate_scores(ServedScores("sample", lists, served, 12, **changes), scores, 0).summary
    )


def test_the_verdict_considers_gaps_in_the_judgements() -> None:
    summary = quality_of((0, 1, None), judged_left_out=1)
    assert summary["verdict"] == "same order"
    assert summary["reason"].endswith("; 1 judged query without text or candidates left out")
    # Without a run, BEIR's lists contain only relevant passages, so every order is equally good
    summary = quality_of((1, 1), reverse=True)
    assert summary["verdict"] == "cannot say"
    assert "only 0 of the judged queries have passages of different grades" in summary["reason"]


TREC_RUN = "q1 Q0 d1 1 9.5 x\nq2 Q0 d2 1 9.5 x\n"


@pytest.mark.parametrize("name", ["bm25_res", "results_dat", "runs/bm25_txt"])
def test_a_run_with_an_unusual_name_is_mentioned(tmp_path: Path, name: str) -> None:
    (tmp_path / "runs").mkdir()
    loaded = load_trec(write_folder(tmp_path, run_txt=None, **{name: TREC_RUN}))
    if name == "bm25_res":  # the suffix of Terrier
        assert "bm25.res" in loaded.files
        return
    assert any(
        f"{name.replace('_', '.')} looks like a run" in warning for warning in loaded.warnings
    )


def test_scores_are_not_mistaken_for_ranks(tmp_path: Path) -> None:
    falling = "q1\td1\t30\nq1\td2\t20\n"
    with pytest.raises(DatasetError, match="third column decreases"):
        load_trec(write_folder(tmp_path, run_txt=falling))
    loaded = load_trec(write_folder(tmp_path, run_txt="q1\td1\t20\nq1\td2\t30\n"))
    assert any("start above 1" in warning for warning in loaded.warnings)
    loaded = load_trec(write_folder(tmp_path, run_txt="q1\td1\t1\nq1\td2\t2\n"))
    assert not any("start above 1" in warning for warning in loaded.warnings)


def test_quoted_texts_over_several_lines_are_rejected(tmp_path: Path) -> None:
    texts = 'd1\t"one\ncontinues"\nd2\ttwo\nd3\tthree\nd4\tfour\n'
    with pytest.raises(DatasetError, match=r"collection\.tsv:1: a quoted text continues"):
        load_trec(write_folder(tmp_path, collection_tsv=texts, run_txt="q1 Q0 d1 1 9.5 x\n"))


def test_git_lfs_pointers_give_their_own_error(tmp_path: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    for name in ("run_txt", "collection_tsv", "queries_tsv"):
        with pytest.raises(DatasetError, match="is a Git LFS pointer"):
            load_trec(write_folder(tmp_path, **{name: pointer}))


def test_a_repeated_key_in_json_is_rejected(tmp_path: Path) -> None:
    row = '{"_id": "d1", "text": "one", "text": "uno"}\n'
    folder = write_folder(tmp_path, collection_tsv=None, corpus_jsonl=row)
    with pytest.raises(DatasetError, match=r"corpus\.jsonl:1: .*the key 'text' is repeated"):
        load_trec(folder)
