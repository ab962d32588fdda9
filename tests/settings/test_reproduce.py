"""The overrides of a stored cell measure the same cell again, and those of its server serve it."""

from __future__ import annotations

import pytest

from crossbench.settings.cell_config import CellConfig
from crossbench.settings.command_line import readable
from crossbench.settings.reproduce import cell_overrides, server_overrides
from tests.helpers.plans import config_of

CASES = {
    "defaults": [],
    "choices and values": ["backend=onnx", "quant=int8", "batch=16", "device=cpu"],
    "choices with the class of another one": ["model=minilm-l12-seeded", "load=poisson"],
    "choices without a name": ["model=local", 'model.path="/a b/c"', "dataset=trec",
                               "dataset.path=2024"],
    "lists and mappings": ["load=poisson", "load.rate=5", "load.sizes=[[10,0.5],[100,0.5]]",
                           "pool.models={large:{layers:12}}"],
    "values without a default, to which others refer": ["server=remote", "target=remote",
                                                        "server.address=h:1"],
    "a server": ["pool=processes", "pool.workers=2", "scheduler=length_aware",
                 "server.max_pairs=7"],
    "null and false": ["load=offline", "load.max_in_flight=null", "backend=onnx",
                       "backend.cls_only=false"],
    "a study": ["+experiment=16_max_length"],
}  # fmt: skip


@pytest.mark.parametrize("given", CASES.values(), ids=list(CASES))
def test_the_overrides_measure_the_same_cell_again(given: list[str]) -> None:
    config = config_of(*map(readable, given))
    overrides = cell_overrides(config)
    assert overrides is not None
    assert config_of(*overrides).cell_id == config.cell_id
    assert len(overrides) <= len(given) + ("+experiment=16_max_length" in given)


def test_the_overrides_name_only_what_differs() -> None:
    assert cell_overrides(config_of("backend=pytorch", "batch=32", "repeat=3")) == []
    assert cell_overrides(config_of("batch=8", "quant=bf16")) == ["quant=bf16", "batch=8"]


def test_a_server_is_started_with_what_it_has_in_common_with_the_cell() -> None:
    config = config_of(
        "batch=8", "quant=int8", "backend=onnx", "load=poisson", "server.max_pairs=7"
    )
    assert server_overrides(config) == ["backend=onnx", "quant=int8", "server.max_pairs=7"]
    assert server_overrides(config_of("batch=8")) == ["backend=pytorch"]
    remote = config_of("server=remote", "target=remote", "server.address=h:1")
    assert server_overrides(remote) is None


@pytest.mark.parametrize(
    "backend",
    [{"_target_": "made.Elsewhere", "name": "made"}, {"name": "pytorch", "gone": {"a": 1}}],
)
def test_what_cannot_be_composed_here_has_no_overrides(backend: dict[str, object]) -> None:
    document = config_of().document
    config = CellConfig({**document, "backend": backend})
    overrides = cell_overrides(config)
    assert overrides is None or config_of(*overrides).cell_id == config.cell_id


def test_a_command_has_one_line() -> None:
    document = config_of("model=local", "model.path=/a").document
    model = {**document["model"], "path": "/a\n# b"}
    assert cell_overrides(CellConfig({**document, "model": model})) is None
