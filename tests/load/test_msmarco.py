"""Parquet files with the schema of microsoft/ms_marco, as various tools write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crossbench.errors import DatasetError
from tests.helpers.datasets import ROWS, expect_notes, load_msmarco


def a_row(
    texts: Any = ("one", "two"), selected: Any = (0, 1), query: Any = "query", query_id: Any = 1
) -> dict[str, Any]:
    passages = {"is_selected": selected, "passage_text": texts}
    return {"query": query, "query_id": query_id, "passages": passages}


def write(path: Path, *rows: dict[str, Any]) -> Path:
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return path


def test_null_values_are_skipped_and_counted(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.parquet",
        a_row(["one", None, "", "two"], [0, 1, 0, None]),
        a_row(query=None, query_id=2),
        a_row(query="\t", query_id=3),
        a_row(query_id=None),
        a_row([None, None], query_id=5),
        a_row(None, None, query_id=6),
        a_row(selected=None, query_id=7),
        {"query": "query", "query_id": 8, "passages": None},
    )
    loaded = load_msmarco(path)
    assert [entry.query_id for entry in loaded.lists] == ["1", "7"]
    first, second = loaded.lists
    assert (first.passages, first.relevance) == (("one", "two"), (0, None))
    assert first.passage_ids == ("1-0", "1-3")
    assert second.relevance == (None, None)
    assert "None" not in repr([entry.passages for entry in loaded.lists])
    expect_notes(
        loaded,
        r"^Skipped 6 rows with a null or blank query, identifier or passage list",
        r"^Skipped 4 passages with a null or blank text",
        r"^Sent 3 passages with is_selected null",
    )
    with pytest.raises(DatasetError, match=r"nothing to send\. Skipped 1 row with a null"):
        load_msmarco(write(path, a_row(query=None)))


def test_a_list_of_structs_equals_a_struct_of_lists(tmp_path: Path) -> None:
    lists = load_msmarco(write(tmp_path / "a.parquet", *ROWS))
    structs = []
    for row in ROWS:
        columns: Any = row["passages"]
        names = list(columns)
        items = [
            dict(zip(names, values, strict=True)) for values in zip(*columns.values(), strict=True)
        ]
        structs.append({**row, "passages": [*items, None]})
    loaded = load_msmarco(write(tmp_path / "b.parquet", *structs))
    assert loaded.digest == lists.digest
    expect_notes(lists, "Skipped 4 passages")
    expect_notes(loaded, "Skipped 8 passages")  # this includes the null structs
    first, _, second = structs[0]["passages"][:3]
    row = {**structs[0], "passages": [first, None, {**second, "passage_text": "last"}]}
    assert load_msmarco(write(tmp_path / "c.parquet", row)).lists[0].passage_ids == ("0-0", "0-2")


def test_numeric_identifiers_keep_their_form(tmp_path: Path) -> None:
    whole = load_msmarco(write(tmp_path / "a.parquet", a_row(query_id=7))).digest
    # pandas turns integers into floats in a column with nulls, and 1 into True
    frame = pd.DataFrame([a_row([b"one", b"two"], [0.0, 1.0], b"query", 7.0)])
    frame.to_parquet(tmp_path / "b.parquet")
    for path in (
        tmp_path / "b.parquet",
        write(tmp_path / "c.parquet", a_row(selected=[False, True], query_id="7")),
        write(tmp_path / "d.parquet", a_row(selected=["0", "1"], query_id=7.0)),
    ):
        loaded = load_msmarco(path)
        assert loaded.digest == whole
        expect_notes(loaded)
    nan = pa.array([float("nan"), 7.0])
    rows = pa.Table.from_pylist([a_row(), a_row(selected=[0, 1])])
    pq.write_table(rows.set_column(1, "query_id", nan), tmp_path / "e.parquet")
    loaded = load_msmarco(tmp_path / "e.parquet")
    assert loaded.digest == whole
    expect_notes(loaded, "Skipped 1 row with a null")


@pytest.mark.parametrize(
    "row",
    [
        a_row("ab", [0, 1]),
        a_row([1, 2]),
        a_row(query=5),
        a_row(query_id=1.5),
        a_row(selected=[0.5, 1.0]),
        a_row(selected=[float("inf"), 1.0]),
        a_row(selected=["yes", "no"]),
        a_row([b"\xff", b"two"]),
        {"query": "query", "query_id": 1, "passages": "one"},
        {"query": "query", "query_id": 1, "passages": ["one", "two"]},
        {"query": "query", "query_id": 1, "passages": {"passage_text": ["one"]}},
    ],
)
def test_errors_for_other_types_name_file_and_row(tmp_path: Path, row: dict[str, Any]) -> None:
    path = write(tmp_path / "a.parquet", row)
    with pytest.raises(DatasetError, match=r"a\.parquet, row 0: the row does not have the schema"):
        load_msmarco(path)


def test_an_identifier_with_two_contents_is_rejected(tmp_path: Path) -> None:
    sound = load_msmarco(write(tmp_path / "a.parquet", a_row())).digest
    write(tmp_path / "b.parquet", a_row())
    loaded = load_msmarco(tmp_path)
    assert loaded.digest == sound
    expect_notes(loaded, r"^Skipped 1 repeated row\.")
    for other in (a_row(query="other"), a_row(["one", "three"]), a_row(selected=[1, 0])):
        write(tmp_path / "b.parquet", a_row(query_id=9), other)
        with pytest.raises(
            DatasetError, match=r"b\.parquet, row 1: query_id 1 .*a\.parquet, row 0"
        ):
            load_msmarco(tmp_path)


def test_a_copy_of_the_hubs_folder(tmp_path: Path) -> None:
    for config in ("v1.1", "v2.1"):
        (tmp_path / config).mkdir()
        write(tmp_path / config / "validation-0.parquet", a_row(query=config))
        write(tmp_path / config / "train-0.parquet", a_row(query=f"{config} train"))
    (tmp_path / "v1.1/.cache").mkdir()
    (tmp_path / "v1.1/.cache/validation-0.parquet").write_text("half of it")
    (tmp_path / "v1.1/._validation-0.parquet").write_text("of macOS")
    assert [entry.query for entry in load_msmarco(tmp_path).lists] == ["v1.1"]
    loaded = load_msmarco(tmp_path, config="v2.1", split="train")
    assert [entry.query for entry in loaded.lists] == ["v2.1 train"]
    (tmp_path / "v2.1/validation-0.parquet").unlink()
    loaded = load_msmarco(tmp_path, config="v2.1", split="validation", limit=9)
    assert [entry.query for entry in loaded.lists] == ["v2.1 train"]
    expect_notes(loaded, r"No file belongs to the requested split; .* instead: train-0\.parquet")


def test_configurations_are_not_mixed(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "validation-0.parquet", a_row(query=name))
    with pytest.raises(DatasetError, match=r"several folders \(a, b\).*dataset\.config=a"):
        load_msmarco(tmp_path)
    assert [entry.query for entry in load_msmarco(tmp_path, config="b").lists] == ["b"]
    (tmp_path / "only/v2.1").mkdir(parents=True)
    write(tmp_path / "only/v2.1/validation-0.parquet", a_row(query="q"))
    expect_notes(load_msmarco(tmp_path / "only"), r"The data is of the configuration v2\.1")


def test_a_git_lfs_pointer_gives_its_own_error(tmp_path: Path) -> None:
    file = tmp_path / "validation-0.parquet"
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(DatasetError, match=r"is a Git LFS pointer.*git lfs pull"):
        load_msmarco(tmp_path)
