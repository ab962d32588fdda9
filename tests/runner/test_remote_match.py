"""A cell of a sweep over a running server fails if it needs another server, and says why."""

from __future__ import annotations

from pathlib import Path

import pytest

from crossbench.errors import ConfigError
from crossbench.models.folder import ModelFolder
from crossbench.runner.remote_match import check_remote, swept_keys_of
from crossbench.serving import inference_pb2 as pb
from crossbench.settings.plan import CellPlan
from crossbench.settings.sweep_state import SweepState, save_state
from tests.helpers.plans import plan_of

REMOTE = ("target=remote", "server=remote", "server.address=127.0.0.1:50051")


def info_of(model: ModelFolder) -> pb.ServerInfo:
    served = pb.ModelInfo(name=model.name, backend="noop", quant="fp32", digest=model.digest)
    return pb.ServerInfo(models=[served], scheduler="dynamic", workers=1)


def plan(cache_dir: Path, *overrides: str) -> CellPlan:
    return plan_of(*REMOTE, *overrides, cache_dir=cache_dir)


@pytest.mark.parametrize(
    ("overrides", "swept", "told"),
    [
        (["backend=packed"], ["backend"], "backend=packed, but it has backend=noop"),
        (["quant=bf16"], ["quant"], "quant=bf16, but it has quant=fp32"),
        (["scheduler=direct"], ["scheduler"], "scheduler=direct, but it has scheduler=dynamic"),
        (["pool.workers=2"], ["pool.workers"], "the sweep varies pool.workers, which it does not"),
        (["device=cpu"], ["device"], "the sweep varies device, which it does not tell"),
        (
            ["backend=packed", "quant=bf16"],
            ["backend", "quant"],
            "backend=packed, but it has backend=noop; quant=bf16, but it has quant=fp32",
        ),
    ],
)
def test_a_cell_that_needs_another_server(
    overrides: list[str],
    swept: list[str],
    told: str,
    seeded_model: ModelFolder,
    cache_dir: Path,
) -> None:
    with pytest.raises(ConfigError, match=f"this cell needs another server: {told}"):
        check_remote(plan(cache_dir, *overrides), swept, info_of(seeded_model), seeded_model)


def test_another_model_is_another_server(seeded_model: ModelFolder, cache_dir: Path) -> None:
    info = info_of(seeded_model)
    info.models[0].digest = "another"
    info.models[0].name = "theirs"
    with pytest.raises(ConfigError, match="model=minilm-l6-seeded, but it serves theirs"):
        check_remote(plan(cache_dir), ["model"], info, seeded_model)


@pytest.mark.parametrize(
    ("overrides", "swept"),
    [
        (["backend=noop", "batch=8"], ["backend", "batch"]),
        (["batch=8"], ["batch", "concurrency", "load.rate"]),
        (["backend=packed"], ["batch"]),  # only a warning: the cell is named after the server
    ],
)
def test_a_cell_that_the_server_can_answer(
    overrides: list[str], swept: list[str], seeded_model: ModelFolder, cache_dir: Path
) -> None:
    check_remote(plan(cache_dir, *overrides), swept, info_of(seeded_model), seeded_model)


def test_a_target_that_starts_a_server_needs_one_to_start(cache_dir: Path) -> None:
    with pytest.raises(ConfigError, match="target=inprocess starts a server, but server=remote is"):
        plan(cache_dir, "target=inprocess")


def test_the_swept_keys_are_those_of_the_cell_s_sweep(tmp_path: Path) -> None:
    assert swept_keys_of(tmp_path / "0") == ()
    save_state(SweepState("s", 2, None, 1, None, ("backend", "batch")), tmp_path)
    assert swept_keys_of(tmp_path / "0") == ("backend", "batch")
