"""Folders of cells, models and data on their way between machines."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from crossbench.settings.cell_config import CellConfig
from crossbench.sweeps.cluster.archive import pack, unpack
from crossbench.sweeps.cluster.carried import (
    MissingFiles,
    carried_files,
    find_all,
    read_content,
    with_paths,
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "1_Pooling" / "config.json").write_text("{ }")
    (folder / "empty").touch()
    return folder


def config(**values: Any) -> CellConfig:
    return CellConfig({"batch": 4, **values})


def test_the_folder_of_a_cell_comes_back_as_it_was(tmp_path: Path) -> None:
    cell, back = tmp_path / "0", tmp_path / "back" / "0"
    (cell / "plots").mkdir(parents=True)
    (cell / "requests.parquet").write_bytes(bytes(range(256)))
    (cell / "plots" / "a.png").write_bytes(b"png")
    unpack(pack(cell), back)
    assert {path.relative_to(back).as_posix() for path in back.rglob("*")} == {
        "requests.parquet", "plots", "plots/a.png",
    }  # fmt: skip
    assert (back / "requests.parquet").read_bytes() == bytes(range(256))


def test_an_archive_cannot_write_elsewhere(tmp_path: Path) -> None:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("../outside"))
    with pytest.raises(tarfile.TarError):
        unpack(content.getvalue(), tmp_path / "0")
    assert not (tmp_path / "outside").exists()


def test_files_are_found_where_they_are_if_their_content_is_the_same(
    model: Path, tmp_path: Path
) -> None:
    (item,) = carried_files(config(model={"path": str(model)}, dataset={"path": None}))
    assert (item.key, item.path) == ("model.path", str(model))
    assert find_all([item], {}, tmp_path / "cache", bytes) == {"model.path": model}


def test_files_that_a_machine_lacks_are_sent_once(model: Path, tmp_path: Path) -> None:
    models = {"small": {"base": "local", "path": str(model)}, "other": {"base": "minilm-l6"}}
    asked = config(pool={"models": models})
    (item,) = carried_files(asked)
    content, cache_dir = read_content(model, bytes), tmp_path / "cache"
    (model / "config.json").write_text('{"another": "model"}')  # at the same path
    with pytest.raises(MissingFiles) as missing:
        find_all([item], {}, cache_dir, bytes)
    assert missing.value.digests == (item.digest,)
    places = find_all([item], {item.digest: content}, cache_dir, bytes)
    place = places["pool.models.small.path"]
    assert place.name == "model"  # the name of a model is that of its folder
    assert (place / "1_Pooling" / "config.json").read_text() == "{ }"
    assert (place / "config.json").read_text() == "{}"
    assert (place / "empty").exists()
    assert find_all([item], {}, cache_dir, bytes) == places  # without its content
    moved = with_paths(asked, places)
    assert moved.document["pool"]["models"]["small"]["path"] == str(place)
    assert asked.document["pool"]["models"]["small"]["path"] == str(model)


def test_a_single_file_is_sent_under_its_name(tmp_path: Path) -> None:
    arrivals = tmp_path / "arrivals.csv"
    arrivals.write_text("arrival_s\n0\n")
    (item,) = carried_files(config(load={"path": str(arrivals)}))
    content = read_content(arrivals, bytes)
    arrivals.unlink()
    place = find_all([item], {item.digest: content}, tmp_path / "cache", bytes)["load.path"]
    assert place.name == "arrivals.csv"
    assert place.read_text() == "arrival_s\n0\n"


def test_a_path_that_this_machine_lacks_is_left_to_the_others(tmp_path: Path) -> None:
    assert carried_files(config(model={"path": str(tmp_path / "none")})) == []
