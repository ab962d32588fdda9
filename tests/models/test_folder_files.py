"""A model folder from a stranger: no code of its own is run, and no file outside it is read."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models

from crossbench.errors import ModelError
from crossbench.models.folder import ModelFolder
from crossbench.models.folder_files import LARGEST_JSON, LARGEST_VOCABULARY
from crossbench.models.reading import read_folder

SMALL = ("config.json", "tokenizer.json", "tokenizer_config.json")


@pytest.fixture
def folder(tmp_path: Path, seeded_model: ModelFolder) -> Path:
    """A copy of the seeded model, whose weights are the same file."""
    copy = tmp_path / "model"
    copy.mkdir()
    for path in seeded_model.path.iterdir():
        if path.suffix == ".safetensors":
            (copy / path.name).hardlink_to(path)
        else:
            shutil.copy(path, copy / path.name)
    return copy


def refused(folder: Path) -> str:
    with pytest.raises(ModelError) as error:
        read_folder(folder, "stranger")
    return str(error.value)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_link_that_leaves_the_folder_is_refused(name: str, folder: Path, tmp_path: Path) -> None:
    (folder / name).rename(tmp_path / name)
    (folder / name).symlink_to(Path("..") / name)
    assert f"{folder / name} is a link to" in refused(folder)


def test_links_within_the_folder_may_be_used(folder: Path) -> None:
    (folder / "config.json").rename(folder / "real.json")
    (folder / "config.json").symlink_to("real.json")
    assert read_folder(folder, "linked").max_length == 512


def test_a_snapshot_of_the_hugging_face_cache_may_be_used(folder: Path, tmp_path: Path) -> None:
    blobs = tmp_path / "models--a--b" / "blobs"
    snapshot = tmp_path / "models--a--b" / "snapshots" / "123"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, path in enumerate(sorted(folder.iterdir())):
        path.rename(blobs / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    assert read_folder(snapshot, "cached").max_length == 512
    (snapshot / "vocab.txt").unlink(missing_ok=True)
    (snapshot / "vocab.txt").symlink_to("../../../secret")
    assert "outside the model folder" in refused(snapshot)


def test_a_module_s_folder_may_not_leave_the_model(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (folder / "1_Pooling").symlink_to(elsewhere)
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.Pooling"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules), "utf-8")
    assert "1_Pooling is a link to" in refused(folder)


@pytest.mark.parametrize("name", SMALL)
def test_a_pipe_is_not_read(name: str, folder: Path) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)  # to read it would wait for ever
    assert "is no regular file" in refused(folder)


@pytest.mark.parametrize(
    ("name", "size"),
    [("config.json", LARGEST_JSON), ("tokenizer_config.json", LARGEST_JSON),
     ("tokenizer.json", LARGEST_VOCABULARY), ("vocab.txt", LARGEST_VOCABULARY)],
)  # fmt: skip
def test_a_file_that_is_too_large_is_refused(name: str, size: int, folder: Path) -> None:
    with (folder / name).open("ab") as file:
        file.truncate(size + 1)  # a sparse file: it takes no space
    assert f"{folder / name} has" in refused(folder)


@pytest.mark.parametrize("depth", [100, 900, 100_000])
@pytest.mark.parametrize("name", SMALL)
def test_deeply_nested_json_is_refused_in_words(name: str, depth: int, folder: Path) -> None:
    text = (folder / name).read_text("utf-8").strip().removesuffix("}")
    (folder / name).write_text(f'{text}, "deep": {"[" * depth}{"]" * depth}}}', "utf-8")
    if name == "tokenizer.json":  # the library ignores the key, or has a limit of its own
        with contextlib.suppress(ModelError):
            read_folder(folder, "deep")
        return
    assert name in refused(folder)


@pytest.mark.parametrize("place", ["config.json", "tokenizer_config.json"])
def test_the_code_of_a_folder_is_never_run(
    place: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if somebody, or a script, answers the library's question with y."""
    marker = tmp_path / "marker"
    Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0)], unk_id=0)).save(
        str(folder / "tokenizer.json")
    )
    code = (
        f"open({str(marker)!r}, 'w')\nfrom transformers import BertConfig as C, BertTokenizer as T"
    )
    (folder / "evil.py").write_text(code, "utf-8")
    auto_map = {"AutoConfig": "evil.C", "AutoTokenizer": ["evil.T", "evil.T"]}
    for name, more in ((place, {"auto_map": auto_map}), ("config.json", {"model_type": "unheard"})):
        file = folder / name
        file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **more}), "utf-8")
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 9))
    refused(folder)
    assert not marker.exists()
