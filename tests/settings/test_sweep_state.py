"""The file of a sweep's state may be broken or a stranger's: it is refused in words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from crossbench.errors import ConfigError, ResultError
from crossbench.load.labels import load_labels
from crossbench.settings.cell_config import CellConfig
from crossbench.settings.sweep_state import STATE_FILE, SweepState, read_state, save_state
from crossbench.tracking.run_process import RunProcess

STATE = SweepState("s", 2, None, 17, None, ("batch",))
DEEP = "[" * 100_000
BROKEN = {
    "empty": ("", "cannot be read"),
    "cut off": ('{"name": "s"', "cannot be read"),
    "not UTF-8": (b'{"name": "\xff"}', "cannot be read"),
    "nested": (DEEP, r"cannot be read \(it is nested too deeply\)"),
    "a list": ("[1]", "has no keys and values"),
    "a key lacks": ('{"name": "s", "cells": 2, "parent_run_id": null}', "has no pid"),
    "text for a number": (
        '{"name": "s", "cells": 2, "parent_run_id": null, "pid": "1; rm"}', "has pid='1; rm'",
    ),
    "a list for a text": (
        '{"name": "s", "cells": 2, "parent_run_id": ["a"], "pid": 1}', "has parent_run_id=",
    ),
    "axes": (
        '{"name": "s", "cells": 2, "parent_run_id": null, "pid": 1, "axes": [{}]}', "has axes=",
    ),
}  # fmt: skip


def test_a_state_is_read_as_it_was_saved(tmp_path: Path) -> None:
    save_state(STATE, tmp_path)
    assert read_state(tmp_path) == STATE
    # Of another version: with a key that this one does not know, and without two others
    state = {"name": "s", "cells": 2, "parent_run_id": None, "pid": 17, "later": 1}
    (tmp_path / STATE_FILE).write_text(json.dumps(state))
    assert read_state(tmp_path) == SweepState("s", 2, None, 17, None, ())


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_state_is_refused_in_words(kind: str, tmp_path: Path) -> None:
    text, reason = BROKEN[kind]
    (tmp_path / STATE_FILE).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ResultError, match=f"sweep.json {reason}.*: restore the file"):
        read_state(tmp_path)


@pytest.mark.parametrize("labels", [DEEP, "[", "5", 5, "[1]", '{"a": 1}', "concurrency"])
def test_labels_that_are_no_list_are_refused_in_words(labels: object) -> None:
    with pytest.raises(ConfigError, match=r"load\.labels must be a list of config keys, got"):
        load_labels(CellConfig({"load": {"name": "closed", "labels": labels}}))


@pytest.mark.parametrize("tag", [DEEP, "[]", '{"pid": 1e400}', '{"pid": "x"}', "null"])
def test_a_process_in_a_tag_that_no_one_wrote_is_not_known(tag: str) -> None:
    assert RunProcess.of_text(tag) is None
