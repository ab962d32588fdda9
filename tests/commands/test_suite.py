"""`python -m crossbench.suite`: run, skip, interrupt and resume studies."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from crossbench.errors import ConfigError, ResultError
from crossbench.models.folder import ModelFolder
from crossbench.report.suite import SUITE_FILE, exit_status, read_suite
from crossbench.settings.choices import study_names
from crossbench.suite import chosen_studies, main, run_study, skip_reason
from crossbench.sweeps.folder import hold
from tests.helpers.plans import plan_of

QUICK = ("backend=noop", "tracker=none", "dashboard=none", "max_seconds=1",
         "warmup_requests=1", "warmup_max_seconds=0.2", "stop=fixed",
         "dataset.queries=4", "dataset.passages_per_query=40")  # fmt: skip


def start(*arguments: str, model: ModelFolder) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "crossbench.suite", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "CROSSBENCH_CACHE": str(model.path.parent)},
    )


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """Read standard error up to the first line that contains `text`."""
    assert process.stderr is not None
    seen = ""
    for line in process.stderr:
        seen += line
        if text in line:
            return seen
    raise AssertionError(f"{text!r} was not printed: {seen}")


@pytest.mark.slow
def test_a_suite_is_interrupted_and_resumed(tmp_path: Path, seeded_model: ModelFolder) -> None:
    given = [
        "studies=[01_backend_pytorch,15_production_optimal]",
        *QUICK,
        "max_seconds=4",  # long enough to be interrupted
        "requests=1000000",
        f"outputs_dir={tmp_path}",
    ]
    suite = start(*given, model=seeded_model)
    seen = read_until(suite, "study 2/2 15_production_optimal")
    assert "study 1/2 01_backend_pytorch" in seen
    read_until(suite, "measuring")
    suite.send_signal(signal.SIGINT)
    _, errors = suite.communicate(timeout=60)
    assert suite.returncode == 130, errors
    (folder,) = tmp_path.glob("suite_*")
    assert f"python -m crossbench.suite resume={folder}" in errors
    first, second = folder / "01_backend_pytorch", folder / "15_production_optimal"
    assert (exit_status(first), exit_status(second)) == (0, None)
    assert "interrupted" in json.loads((second / "0" / "result.json").read_text())["error"]
    measured = (first / "0" / "result.json").read_bytes()
    assert "not finished" in (folder / "report.md").read_text("utf-8")

    again = start(f"resume={folder}", model=seeded_model)
    _, errors = again.communicate(timeout=120)
    assert again.returncode == 0, errors
    assert "study 1/2 01_backend_pytorch: already done" in errors
    assert (first / "0" / "result.json").read_bytes() == measured
    assert (exit_status(first), exit_status(second)) == (0, 0)
    text = (folder / "report.md").read_text("utf-8")
    headings = re.findall(r"^## (.*)$", text, flags=re.M)
    assert headings == [
        "Studies", "Baseline against production optimum", "Recommendations",
        "01_backend_pytorch", "15_production_optimal",
    ]  # fmt: skip
    contents = re.findall(r"^- \[(.*)\]\(#.*\)$", text, flags=re.M)
    assert contents == headings
    assert "baseline: 01_backend_pytorch, noop" in text
    assert "optimum: 15_production_optimal, noop" in text
    assert "532 / 814" in text  # the figures of the predecessor system
    assert "backend=noop" in text.splitlines()[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["studies=[20_stage]"], "there is no study 20_stage. Did you mean 20_stages?"),
        (["studies=[20_stages]", "batchh=3"], "no key batchh. Did you mean batch?"),
        (["resume=x", "batch=3"], "leave out batch=3"),
    ],
)
def test_unknown_studies_and_overrides_are_refused(
    tmp_path: Path, arguments: Sequence[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        main([*arguments, *([] if arguments[0] == "resume=x" else [f"outputs_dir={tmp_path}"])])
    assert not list(tmp_path.iterdir())


def test_a_running_suite_cannot_be_resumed(tmp_path: Path) -> None:
    """Two processes of one suite would delete each other's studies."""
    state = {"studies": [], "overrides": [], "skipped": {}}
    (tmp_path / SUITE_FILE).write_text(json.dumps(state))
    taken = hold(tmp_path, "resume")
    with pytest.raises(ConfigError, match="in use by another run"):
        main([f"resume={tmp_path}"])
    with pytest.raises(ConfigError, match="in use by a study of a suite that was killed"):
        run_study("20_stages", [], tmp_path)
    assert (tmp_path / SUITE_FILE).exists()
    taken.release()
    assert main([f"resume={tmp_path}"]) == 0


def test_studies_are_chosen_by_name() -> None:
    assert chosen_studies(None) == study_names()
    assert chosen_studies("studies=all") == study_names()
    wanted = ["20_stages", "01_backend_pytorch"]
    assert chosen_studies("studies=[20_stages,01_backend_pytorch,20_stages]") == wanted
    assert chosen_studies("studies=20_stages") == ["20_stages"]


def test_a_folder_that_is_not_a_suite_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="is not the folder of a suite"):
        read_suite(tmp_path)
    (tmp_path / SUITE_FILE).write_text("{}")
    with pytest.raises(ResultError, match="is not the folder of a suite"):
        read_suite(tmp_path)


def test_a_study_is_skipped_only_if_its_backend_is_unavailable(cache_dir: Path) -> None:
    noop, mps, wrong = (
        plan_of(*given, cache_dir=cache_dir)
        for given in (["backend=noop"], ["backend=mps"], ["backend=onnx", "device=mps"])
    )
    assert skip_reason(noop) is None
    assert skip_reason(wrong) is None  # unsupported on every machine, so not skipped
    if sys.platform != "darwin":
        assert "Apple GPU" in str(skip_reason(mps))


@pytest.mark.skipif(sys.platform == "darwin", reason="a Mac has what the study needs")
def test_a_suite_without_a_study_that_can_run(tmp_path: Path, seeded_model: ModelFolder) -> None:
    suite = start("studies=[02_backend_mps]", f"outputs_dir={tmp_path}", model=seeded_model)
    _, errors = suite.communicate(timeout=120)
    assert suite.returncode == 0, errors
    assert "skipped 02_backend_mps: backend=mps is not available here" in errors
    (report,) = tmp_path.glob("suite_*/report.md")
    assert "0 of 1 studies have results" in report.read_text("utf-8")
    assert "Apple GPU" in report.read_text("utf-8")
