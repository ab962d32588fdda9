"""Which classes a config may name: those of crossbench, and those that the user allows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from crossbench.errors import ConfigError
from crossbench.settings.command_line import readable_arguments
from crossbench.settings.component import Component
from crossbench.settings.hydra_targets import check_composed
from crossbench.settings.places import conf_dir
from crossbench.settings.resume import resumed_arguments
from crossbench.settings.schema import register
from crossbench.settings.stored_plan import PlannedRun, StoredPlan
from crossbench.settings.targets import VARIABLE, allowed_class, check_names, take_allowed

QUICK = (
    "backend=noop", "requests=3", "stop=fixed", "warmup_requests=0", "tracker=none",
    "dashboard=none", "quality=none",
)  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "")  # so that it is restored after the test
    monkeypatch.delenv(VARIABLE)


@pytest.mark.parametrize(
    "target",
    [
        "os.system", "subprocess.Popen", "builtins.eval", "crossbenchmark.Evil", "crossbench",
        "crossbench.cli.main", "crossbench.cli.sys", "crossbench.cli.runpy.run_path",
        "crossbench.sweeps.upload.psutil.Popen", "crossbench.models.library_facts.subprocess.Popen",
        "crossbench.settings.component.Component.of", "crossbench..cli", "", "../x", 7, None,
        "crossbench.no_such_module.Class", "crossbench.settings.component.Any",
        "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
    ],
)  # fmt: skip
def test_only_classes_of_crossbench_may_be_named(target: object) -> None:
    with pytest.raises(ConfigError, match="tracker"):
        allowed_class("tracker", target)


def test_the_error_says_what_was_given_and_what_to_do() -> None:
    with pytest.raises(ConfigError) as refused:
        Component.of("backend", {"_target_": "bag.BagBackend", "name": "bag"})
    assert "backend._target_ names bag.BagBackend" in str(refused.value)
    assert "allow_targets=[bag.]" in str(refused.value)


def test_a_class_reached_through_another_module_is_named_by_its_own(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    node = {
        "_target_": "crossbench.models.library_facts.subprocess.Popen",
        "args": ["touch", str(marker)],
    }
    with pytest.raises(ConfigError, match=r"which is subprocess\.Popen"):
        Component.of("tracker", node)
    assert not marker.exists()


@pytest.mark.parametrize(
    "values",
    [{"a": {"_target_": "os.system"}}, {"a": [{"b": {"c": {"_target_": "os.system"}}}]}],
)
def test_nested_classes_are_checked(values: dict[str, object]) -> None:
    target = "crossbench.tracking.protocol.NoTracker"
    with pytest.raises(ConfigError, match=r"tracker\.a\S* names os\.system"):
        Component.of("tracker", {"_target_": target, "name": "none", **values})


@pytest.mark.parametrize(
    "word", ["allow_targets=[bag.]", "allow_targets=bag", "+allow_targets=['bag.','mine.x.']"]
)
def test_the_command_line_allows_more(word: str) -> None:
    assert take_allowed(["-m", word, "batch=8"]) == ["-m", "batch=8"]
    check_names("backend", {"_target_": "bag.BagBackend"})
    with pytest.raises(ConfigError):
        check_names("backend", {"_target_": "bagpipes.Bag"})


def test_the_environment_allows_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "collections.")
    assert allowed_class("backend", "collections.OrderedDict").__name__ == "OrderedDict"
    with pytest.raises(ConfigError):  # a module that an allowed one imports is not allowed
        allowed_class("backend", "collections.abc.sys")


@pytest.mark.parametrize("value", ["[]", "[*]", "[.]", "", "[os.,]"])
def test_allowing_everything_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match="give for example"):
        take_allowed([f"allow_targets={value}"])


def test_a_stored_plan_cannot_allow_classes(tmp_path: Path) -> None:
    arguments = ("-m", "backend=mine", "allow_targets=[os.]")
    StoredPlan(arguments, str(tmp_path), ("a",), (PlannedRun(0, None),)).save(tmp_path)
    with pytest.raises(ConfigError, match="a file cannot allow classes"):
        resumed_arguments(["-m", f"resume={tmp_path}"])


@pytest.mark.parametrize("word", ["--experimental-rerun=x.pickle", "--experimental-re=x.pickle"])
def test_no_pickled_job_is_run_again(word: str) -> None:
    with pytest.raises(ConfigError, match="pickle"):
        readable_arguments([word])


@pytest.fixture(scope="module")
def composed() -> Callable[..., DictConfig]:
    register()

    def make(*overrides: str) -> DictConfig:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            return compose("config", overrides=list(overrides), return_hydra_config=True)

    return make


HYDRA = {
    "a callback": "++hydra.callbacks.x._target_=os.system",
    "through a module": "++hydra.callbacks.x._target_=crossbench.cli.runpy.run_path",
    "a function of Hydra": "++hydra.callbacks.x._target_=hydra.utils.get_method",
    "inside a callback": "++hydra.callbacks.x={_target_:crossbench.sweeps.hooks.SweepCallback,"
    "y:[{_target_:os.system}]}",
    "by reference": "++hydra.callbacks.x=${study}",
    "by interpolation": "++hydra.callbacks.x._target_=${oc.env:NO_SUCH_VARIABLE}",
    "built while resolving": "++hydra.callbacks.x='${oc.create:\"{_target_: os.system}\"}'",
    "the launcher": "++hydra.launcher._target_=os.system",
    "the sweeper": "++hydra.sweeper._target_=subprocess.Popen",
    "a log handler": "++hydra.job_logging.handlers.x.class=subprocess.Popen",
    "a log handler's module": "++hydra.hydra_logging.handlers.x.class=logging.os.system",
    "an import in the log": "++hydra.job_logging.handlers.x.stream='ext://os.environ'",
    "a component": "tracker._target_=os.system",
    "anywhere": "++study={a:[{_target_:os.system}]}",
    "the environment": "++hydra.job.env_set.CROSSBENCH_ALLOW_TARGETS=os.",
    "a preloaded library": "++hydra.job.env_set.LD_PRELOAD=x.so",
}


@pytest.mark.parametrize("override", HYDRA.values(), ids=HYDRA)
def test_what_hydra_builds_is_checked_first(
    override: str, composed: Callable[..., DictConfig]
) -> None:
    extra = ["++study={_target_: os.system}"] if "${study}" in override else []
    with pytest.raises(ConfigError):
        check_composed(composed(override, *extra))


def test_factories_of_log_handlers_are_checked(composed: Callable[..., DictConfig]) -> None:
    config = composed("++hydra.job_logging.formatters.f.x=1")
    config.hydra.job_logging.formatters.f = {"()": "os.system", "command": "true"}
    with pytest.raises(ConfigError, match="job_logging"):
        check_composed(config)


@pytest.mark.parametrize(
    "overrides",
    [(), ("hydra/job_logging=default", "hydra/hydra_logging=default"), ("hydra/launcher=basic",)],
)
def test_our_own_config_passes(
    overrides: tuple[str, ...], composed: Callable[..., DictConfig]
) -> None:
    check_composed(composed(*overrides))


def run(
    folder: Path, *arguments: str, module: str = "crossbench", **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, **environment},
        timeout=120,
    )


EVIL = {
    "tracker/evil": "_target_: subprocess.Popen\nargs: [touch, {marker}]\n",
    "experiment/callback": "# @package _global_\nhydra:\n  callbacks:\n    x:\n"
    "      _target_: subprocess.Popen\n      args: [touch, {marker}]\n",
    "experiment/log": "# @package _global_\nhydra:\n  job_logging:\n    version: 1\n"
    "    root: {{}}\n    formatters:\n      f:\n"
    "        (): subprocess.Popen\n        args: [touch, {marker}]\n",
    "experiment/allows": "# @package _global_\nallow_targets: [subprocess.]\n",
}


@pytest.fixture(scope="module")
def evil(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for --config-dir whose files create the file `marker` if their code runs."""
    folder = tmp_path_factory.mktemp("evil")
    for name, text in EVIL.items():
        file = folder / "conf" / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.format(marker=folder / "marker"), "utf-8")
    return folder


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        ("tracker=evil", "tracker._target_ names subprocess.Popen"),
        ("+experiment=callback", "hydra.callbacks.x._target_ names subprocess.Popen"),
        ("+experiment=log", "hydra.job_logging.formatters.f.() names subprocess.Popen"),
        ("+experiment=allows", "a file cannot allow classes"),
    ],
)
def test_no_file_runs_code(choice: str, reason: str, evil: Path) -> None:
    done = run(evil, "--config-dir", "conf", *QUICK, choice, f"outputs_dir={evil / 'outputs'}")
    assert done.returncode == 1
    assert reason in done.stderr
    assert "Traceback" not in done.stderr
    assert not (evil / "marker").exists()


def test_the_attack_works_where_it_is_allowed(evil: Path) -> None:
    """Otherwise the test above would prove nothing."""
    marker = evil / "marker"
    allowed = run(
        evil, "--config-dir", "conf", *QUICK, "tracker=evil", f"outputs_dir={evil / 'outputs'}",
        CROSSBENCH_ALLOW_TARGETS="subprocess.",
    )  # fmt: skip
    assert marker.exists(), allowed.stderr
    marker.unlink()


def test_a_stored_cell_is_checked_when_it_is_read_again(tmp_path: Path) -> None:
    """The cell process reads config.yaml: it can name only what its own environment allows."""
    from crossbench.settings.cell_config import CellConfig
    from crossbench.settings.plan import composed_config, load_config, make_plan, save_config

    register()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        good = composed_config(compose("config", overrides=["backend=noop"]))
    document = json.loads(json.dumps(good.document))
    document["backend"] = {"_target_": "collections.OrderedDict", "name": "x"}
    save_config(CellConfig({**document, "allow_targets": ["collections."]}), tmp_path)
    with pytest.raises(ConfigError, match=r"backend\._target_ names collections\.OrderedDict"):
        make_plan(load_config(tmp_path))
