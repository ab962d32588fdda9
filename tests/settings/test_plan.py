"""The plan of a cell: every value is checked against the type of its field."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from crossbench.errors import ConfigError, CrossbenchError
from crossbench.runner.checks import check_config
from crossbench.settings.cell_config import CellConfig
from crossbench.settings.component import Component
from crossbench.settings.plan import load_config, make_plan, save_config
from crossbench.settings.run import default_tracker
from tests.helpers.plans import config_of, plan_of


@dataclass
class Inner:
    count: int


@dataclass
class Choice:
    """A choice with a field of every type used in conf/."""

    name: str
    count: int
    seconds: float
    ways: Literal["load", "round_robin"]
    kinds: Sequence[str]
    strengths: Mapping[str, float]
    path: str | None
    threads: int | str
    exact: bool
    inner: Inner
    made: int = 0


NODE: Mapping[str, Any] = {
    "_target_": f"{__name__}.Choice",
    "name": "x",
    "count": 1,
    "seconds": 2,
    "ways": "load",
    "kinds": ["a"],
    "strengths": {"a": 0.5, "b": 1},
    "path": None,
    "threads": "auto",
    "exact": True,
    "inner": {"_target_": f"{__name__}.Inner", "count": 3},
}


def test_a_component_is_built_with_its_nested_components() -> None:
    built = Component.of("group", NODE).build(made=7)
    assert built.inner == Inner(3)
    assert (built.count, built.made, built.strengths) == (1, 7, {"a": 0.5, "b": 1})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("count", "8", "group.count must be a whole number, got '8'"),
        ("count", True, "group.count must be a whole number, got True"),
        ("count", 1.5, "group.count must be a whole number, got 1.5"),
        ("seconds", "soon", "group.seconds must be a number, got 'soon'"),
        ("ways", "random", "group.ways must be load or round_robin, got 'random'"),
        ("kinds", "a", "group.kinds must be a list of texts, got 'a'"),
        ("kinds", [1], r"group.kinds must be a list of texts, got \[1\]"),
        ("strengths", {"a": "b"}, "group.strengths must be a mapping of texts to numbers"),
        ("path", 2024, "group.path must be text or null, got 2024: if it is text, put it in"),
        ("threads", 1.5, "group.threads must be a whole number or text, got 1.5"),
        ("exact", "yes", "group.exact must be true or false, got 'yes'"),
        ("inner", 5, r"group.inner must be a group of keys \(count\), got 5"),
        ("inner", {"_target_": f"{__name__}.Inner", "count": None}, "group.inner.count must be"),
        (
            "_target_",
            "tests.nowhere.Class",
            r"group\._target_ names tests\.nowhere\.Class, which",
        ),
        ("_target_", None, "group must be a choice of conf/group"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(key: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Component.of("group", {**NODE, key: value})


def test_a_value_that_the_class_does_not_accept_is_refused() -> None:
    with pytest.raises(ConfigError, match="does not take"):
        Component.of("group", {**NODE, "colour": "red"}).build()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("pool.routing=random", "pool.routing must be load or round_robin, got 'random'"),
        ("pool.kind=fork", "pool.kind must be thread or process, got 'fork'"),
        ("dataset.passage_tokens=20", "dataset.passage_tokens must be a list of whole numbers"),
        ("load.task=rank", "load.task must be one of score, embed, got 'rank'"),
        ("batch=0", "batch must be a positive whole number, got 0"),
        ("concurrency=-1", "concurrency must be a positive whole number, got -1"),
        ("requests=many", "requests must be a positive whole number, got 'many'"),
        ("max_seconds=0", "max_seconds must be a positive number of seconds"),
        ("pool.workers=0", "pool.workers must be a positive whole number or auto, got 0"),
        ("scheduler.max_batch_pairs=many", "max_batch_pairs must be a whole number, got 'many'"),
        ("dataset=trec", "dataset.path=DIR"),
        ("quality.depth=deep", "quality.depth must be a whole number or null, got 'deep'"),
        ("pool.models=[tall]", "pool.models: 'tall' is not a choice of conf/model"),
    ],
)
def test_a_bad_value_for_a_key_of_conf_is_refused(override: str, message: str) -> None:
    with pytest.raises(CrossbenchError, match=message):
        check_config(config_of(override))


def test_the_cell_process_reads_the_plan_of_the_parent(tmp_path: Path, cache_dir: Path) -> None:
    plan = plan_of("backend=onnx", "quant=int8", "pool.models=[minilm-l6]", cache_dir=cache_dir)
    save_config(plan.config, tmp_path)
    assert make_plan(load_config(tmp_path)) == plan


def test_a_plan_can_be_pickled(cache_dir: Path) -> None:
    plan = plan_of("backend=noop", cache_dir=cache_dir)
    assert pickle.loads(pickle.dumps(plan)) == plan


def test_a_config_is_read_by_dotted_key() -> None:
    config = config_of("backend=noop", "batch=8")
    assert (config.value("backend"), config.value("batch")) == ("noop", 8)
    assert config.value("load.task") == "score"
    assert config.value("nothing", "absent") == "absent"
    assert not CellConfig()


def test_mlflows_own_variables_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example:5000")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "rerankers")
    values = default_tracker().values
    assert (values["uri"], values["experiment"]) == ("http://mlflow.example:5000", "rerankers")
