"""Files that the cell process cannot write go to its parent process."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from crossbench.events import FileKept, decode
from crossbench.results import RunResult, Status, parse_result, save_result
from crossbench.runner.__main__ import CellFiles
from crossbench.runner.event_stream import EventStream
from crossbench.settings.cell_config import CellConfig


def test_a_file_is_sent_until_it_can_be_written(tmp_path: Path) -> None:
    pipe, path = io.StringIO(), tmp_path / "result.json"
    files = CellFiles(EventStream(pipe))
    result = RunResult(Status.FINISHED, CellConfig(), "0", error="ü")
    path.mkdir()  # a folder in its place
    (path / "file").touch()
    files.save(lambda: save_result(result, tmp_path))
    assert [item.name for item in tmp_path.iterdir()] == ["result.json"]  # and no partial file
    (path / "file").unlink()
    path.rmdir()
    files.save(lambda: save_result(result, tmp_path))
    files.save(lambda: save_result(result, tmp_path))  # the parent process knows it already
    first, second, *others = [decode(line) for line in pipe.getvalue().splitlines()]
    assert first is not None
    assert isinstance(first.event, FileKept)
    assert first.event.content is not None
    assert base64.b64decode(first.event.content) == path.read_bytes()
    assert parse_result(path.read_bytes(), path).error == "ü"
    assert "directory" in first.event.reason
    assert second is not None
    assert second.event == FileKept("result.json", None, "")
    assert not others
