"""What happens between the cells of a sweep, where Hydra's code runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf

from crossbench.settings.stored_plan import PlannedRun, StoredPlan
from crossbench.sweeps.conduct import conduct
from crossbench.sweeps.folder import is_interrupted
from crossbench.sweeps.launchers import ONE_BY_ONE
from crossbench.sweeps.unsaved import unsaved_files


class Launching(Launcher):
    """Calls `launched` with the number of each cell."""

    def __init__(self, launched: Callable[[int], None]) -> None:
        self._launched = launched

    def setup(self, **_: Any) -> None:
        """Do nothing."""

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        self._launched(initial_job_idx)
        return []


@pytest.fixture
def sweep(tmp_path: Path) -> DictConfig:
    """The config of a sweep of two cells, with its plan in `tmp_path`."""
    cells = ("a", "b")
    StoredPlan((), "/", cells, (PlannedRun(0, None), PlannedRun(1, None))).save(tmp_path)
    hydra = {
        "sweep": {"dir": str(tmp_path)},
        "sweeper": {"params": {"batch": "2,4"}},
        "launcher": {"_target_": ONE_BY_ONE},
    }
    return OmegaConf.create({"resume": str(tmp_path), "until_decided": False, "hydra": hydra})


def test_a_signal_between_two_cells_ends_the_sweep_with_its_report(
    sweep: DictConfig, tmp_path: Path
) -> None:
    """Hydra reaches the hook that writes the report only if the sweeper returns."""
    launched = []

    def interrupted(number: int) -> None:
        launched.append(number)
        (tmp_path / str(number)).mkdir()
        raise KeyboardInterrupt

    assert conduct(sweep, Launching(interrupted), []) == []
    assert launched == [0]
    assert is_interrupted(tmp_path)
    assert not (tmp_path / "0").exists()  # an empty folder would count as a failed cell


def test_cells_whose_folder_cannot_be_created_are_told_once(
    sweep: DictConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    launched = []

    def refused(number: int) -> None:
        launched.append(number)
        (tmp_path / "plan.json" / str(number)).mkdir()  # the parent is a file

    conduct(sweep, Launching(refused), [])
    assert launched == [0, 1]  # there may be space again
    assert unsaved_files.tell_lost("the command")
    told = capsys.readouterr().err
    assert told.count("Not a directory") == 1
    assert "2 cells could not be measured" in told
    assert not unsaved_files.tell_lost("the command")
