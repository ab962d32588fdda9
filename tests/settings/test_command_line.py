"""Overrides as users type them, with Hydra's own grammar and a real shell."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from crossbench.errors import ConfigError
from crossbench.settings.command_line import options_first, quoted, readable, readable_arguments
from crossbench.settings.composition_errors import did_you_mean, explain
from crossbench.settings.overrides import check_points, check_study, sweep_points
from crossbench.settings.places import conf_dir
from crossbench.settings.schema import register

A, B = "05a_batch_size_mps", "06a_concurrency_mps"


@pytest.fixture
def hydra() -> Iterator[None]:
    register()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        yield


def parse(override: str) -> Override:
    return OverridesParser.create().parse_override(override)


def shell_arguments(line: str) -> list[str]:
    """Return the arguments that a program gets if `line` is typed in a shell."""
    code = f"{shlex.quote(sys.executable)} -c 'import sys; print(*sys.argv[1:], sep=chr(0))' "
    done = subprocess.run(["sh", "-c", code + line], capture_output=True, text=True, check=True)
    return done.stdout.removesuffix("\n").split("\0")


@pytest.mark.parametrize(
    "path",
    [
        "~/x", "~", "a=b", "x(1)", "a#b", "模型", "naïve café", "it's", 'say "hi"', "both ' and \"",
        "a;b&c", "<a>", "x/[a]/y", "[draft] x", "{a", "back\\sla#h", "end#\\", "[::1]:50051",
        "2024", "1e5", "true", "100%", "a:b", "my dir", "`x`", "a!b^c", "tab\t#",
    ],
)  # fmt: skip
def test_a_path_needs_no_quotes(path: str) -> None:
    override = readable(f"model.path={path}")
    assert parse(override).value() == path
    assert readable(override) == override
    assert parse(f"model.path={quoted(path)}").value() == path


@pytest.mark.parametrize(
    ("override", "value"),
    [("batch=8", 8), ("model.path=null", None), ("a=[x]", ["x"]), ("a={b:1}", {"b": 1})],
)
def test_an_override_that_hydra_can_parse_is_unchanged(override: str, value: Any) -> None:
    assert readable(override) == override
    assert parse(override).value() == value


@pytest.mark.parametrize(
    ("override", "meanings"),
    [
        ("model.path=~/a,~/b", ["~/a,~/b", ["~/a", "~/b"]]),
        ("model.path=it's,b", ["it's,b", ["it's", "b"]]),
        ("pool.models=[~/a,b c]", ["[~/a,b c]", ["~/a", "b c"]]),
        ("model.path=choice(~/a,~/b)", [["~/a", "~/b"]]),
        ("model.path={~/a}", ["{~/a}"]),
        ("model.path='it's'", ["'it's'"]),
    ],
)
def test_an_ambiguous_value_is_refused_with_forms_that_work(
    override: str, meanings: list[Any]
) -> None:
    with pytest.raises(ConfigError, match="Hydra cannot parse") as caught:
        readable(override)
    forms = re.split(r"(?:; or )?(?:Give it )?(?:as one text|for a sweep with -m|as a list): ",
                    str(caught.value))[1:]  # fmt: skip
    found = []
    for form in forms:
        (word,) = shell_arguments(form)
        parsed = parse(word)
        is_sweep = parsed.is_sweep_override()
        values = [parse(f"x={text}").value() for text in parsed.sweep_string_iterator()] \
            if is_sweep else parsed.value()  # fmt: skip
        found.append(values)
    assert found == meanings


@pytest.mark.parametrize(
    ("argument", "message"),
    [("foo", "'foo' is not an override: give KEY=VALUE"), ("mödel.path=x", "cannot be the name")],
)
def test_an_argument_that_is_not_an_override_is_refused(argument: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        readable(argument)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch", "32"], "there is no option --batch. Settings have no dashes: give KEY=VALUE"),
        (["--cfg", "all_of_it"], "invalid choice: 'all_of_it'"),
        (["batch=8", "--config-dir"], "expected one argument; --hydra-help lists the options"),
        (["--config-name", "x"], "--config-name x: crossbench always starts from its own config"),
        (["backend=[onnx,packed]"], "mixes the values of several choices into one: give one of"),
        (["batch=1,", "2"], "'batch=1,' ends with a comma: give several values without spaces"),
    ],
)
def test_arguments_that_no_command_takes_are_refused_in_words(
    arguments: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        readable_arguments(arguments)


@pytest.mark.parametrize(
    ("typed", "existing", "meant"),
    [
        ("pytroch", ["pytorch", "onnx"], " Did you mean pytorch?"),
        ("8", ["fp16", "int4", "int8"], " Did you mean int8?"),
        ("21", ["one_21_study", "another_21"], " Did you mean one_21_study or another_21?"),
        ("e", ["one", "three", "five", "seven"], ""),
        ("", ["a"], ""),
    ],
)
def test_the_nearest_name_is_suggested(typed: str, existing: list[str], meant: str) -> None:
    assert did_you_mean(typed, existing) == meant


def test_info_takes_no_override_for_its_value() -> None:
    assert readable_arguments(["batch=8", "--info"]) == ["--info=all", "batch=8"]
    assert readable_arguments(["--info", "defaults"]) == ["--info", "defaults"]


def test_a_path_passes_through_the_shell_and_the_command(tmp_path: Path) -> None:
    typed = (
        f"{shlex.quote(sys.executable)} -m crossbench --cfg job model=local "
        'model.path=~/"it\'s # 模型 (1)" '
    )
    done = subprocess.run(
        ["sh", "-c", typed], capture_output=True, text=True, env={**os.environ, "HOME": "/h"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "it''s # 模型 (1)" in done.stdout  # quoted for YAML


@pytest.mark.usefixtures("hydra")
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([f"+experiment={A},{B}"], f"python -m crossbench.suite studies=[{A},{B}]"),
        ([f"+experiment=choice({A},{B})", "seed=1"], f"suite studies=[{A},{B}] seed=1"),
        (["+experiment=glob(05*)"], f"suite studies=[{A},05b_batch_size_mlx]"),
        (
            ["+experiment/sweep=batch_size,concurrency", "backend=noop"],
            "python -m crossbench -m +experiment/sweep=batch_size backend=noop\n",
        ),
        (["batch=32,32"], "cells 0 and 1 of this sweep are the same"),
        (["batch=8", "max_seconds=2,1,1.0"], "cells 1 and 2 of this sweep are the same"),
        (["repeat=1,1"], "give repeats=3"),
        (["quality=none,sample"], "differ only in quality"),
        (
            ["model=local,minilm-l6-seeded", "++model.path=x", "backend.streems=1"],
            "no key backend.streems",
        ),
    ],
)
def test_sweeps_with_lost_or_equal_cells_are_refused(given: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        check_points(sweep_points(given), lambda config: None, given, {})


@pytest.mark.usefixtures("hydra")
def test_repeats_are_not_equal_cells() -> None:
    for given in (["repeat=1,2"], ["backend=noop", "batch=8,16"]):
        check_points(sweep_points(given), lambda config: None, given, {})


@pytest.mark.usefixtures("hydra")
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([f"+experiment=[{A},{B}]"], f"python -m crossbench.suite studies=[{A},{B}]"),
        ([f"+experiment={A}"], f"give python -m crossbench -m +experiment={A}"),
    ],
)
def test_studies_whose_sweep_would_be_ignored_are_refused(given: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        check_study(compose("config", overrides=given, return_hydra_config=True))


@pytest.mark.usefixtures("hydra")
def test_one_cell_of_a_study_can_be_measured() -> None:
    given = [f"+experiment={A}", "batch=4"]
    check_study(compose("config", overrides=given, return_hydra_config=True))


@pytest.mark.usefixtures("hydra")
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            ["model=minilm-l6-seeded,local", "model.path=my dir"],
            "model=minilm-l6-seeded has no key model.path, but model=local has. "
            "Run two sweeps:\n"
            "  python -m crossbench -m model=minilm-l6-seeded\n"
            "  python -m crossbench -m model=local 'model.path=my dir'",
        ),
        (
            ["backend=noop,onnx,openvino", "backend.streams=2"],
            "python -m crossbench -m backend=noop\n"
            "  python -m crossbench -m backend=onnx,openvino ++backend.streams=2",
        ),
        (["backend=onnx,openvino", "backend.streams=2"], "backend=onnx,openvino ++backend.streams"),
        (["backend=onnx,noop", "backend.streems=2"], "Did you mean streams?"),
        (
            ["model=local", "model.pth=x"],
            "Did you mean path? Available keys under model: max_length",
        ),
    ],
)
def test_a_key_that_only_some_swept_choices_have_is_refused(given: list[str], message: str) -> None:
    with pytest.raises(HydraException, match="Could not override") as caught:
        compose("config", overrides=[word for word in given if "," not in word])
    assert message in explain(caught.value, given, given)


@pytest.mark.usefixtures("hydra")
@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "backend=onx",
            "there is no choice backend=onx. Did you mean onnx? Available choices of backend: "
            "compiled, cuda, mlx, mps, noop, onnx, openvino, packed, pytorch",
        ),
        ("backend=tensorflow", "there is no choice backend=tensorflow. Available choices of"),
        (
            "+experiment=sweep/batchsize",
            "no choice experiment=sweep/batchsize. Did you mean sweep/batch_size? "
            "Available choices of experiment: sweep/batch_size, sweep/concurrency",
        ),
        ("backend=fast/onnx", "no choice backend=fast/onnx. Did you mean onnx? Available"),
        ("model=[local,hubb]", "there is no choice model=hubb. Did you mean hub? Available"),
        ("hydra/launcher=joblb", "no choice hydra/launcher=joblb. Did you mean joblib? Available"),
        ("backend=32", "there is no choice backend=32. Available choices of backend: compiled"),
        ("quant=8", "there is no choice quant=8. Did you mean int8? Available"),
        ("+experiment=21", "there is no choice experiment=21. Did you mean 21_quantization?"),
        ("model=../here", "For a folder, give model=local model.path=../here. Available choices"),
        ("load.rate=3", "load.rate is a key of load=constant or gamma or poisson only: give for"),
        ("quant=null", "there is no choice quant=null. Available choices of quant: bf16, fp16"),
    ],
)
def test_an_unknown_choice_is_refused_with_the_choices(override: str, message: str) -> None:
    given = [readable(override)]
    with pytest.raises(HydraException) as caught:
        compose("config", overrides=given)
    assert message in explain(caught.value, given, given)


@pytest.mark.usefixtures("hydra")
def test_an_unknown_choice_in_a_sweep_is_refused_before_any_cell_runs() -> None:
    given = [readable("backend=noop,32")]
    with pytest.raises(ConfigError, match="there is no choice backend=32"):
        check_points(sweep_points(given), lambda config: None, given, {})


def test_an_unknown_choice_in_a_study_is_refused(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    study = "# @package _global_\ndefaults:\n  - /predecessor: mps_31\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(study)
    command = [sys.executable, "-m", "crossbench", "--config-dir", str(tmp_path)]
    done = subprocess.run([*command, "+experiment=mine"], capture_output=True, text=True)
    assert done.returncode == 1
    message = "experiment/mine: there is no choice predecessor=mps_31. Did you mean mps_32?"
    assert message in done.stderr


def test_a_name_that_looks_like_a_number_stays_text() -> None:
    for override in ("model.revision=12e5", "tracker.experiment=2024_11", "model.name=1e3"):
        key, _, value = override.partition("=")
        assert readable(override) == f'{key}="{value}"'
    assert readable("batch=32") == "batch=32"


CONFIG_DIR = [("--config-dir", "mine"), ("--config-dir=mine",), ("-cd", "mine"), ("-cd=mine",)]
WORDS = ("backend=mine", "batch=8", "+experiment=x")


@pytest.mark.parametrize("option", CONFIG_DIR, ids=" ".join)
@pytest.mark.parametrize("position", range(len(WORDS) + 1))
@pytest.mark.parametrize("more", [(), ("-m",), ("--cfg", "job")], ids=" ".join)
def test_options_may_stand_anywhere(
    option: tuple[str, ...], position: int, more: tuple[str, ...]
) -> None:
    arguments = [*WORDS[:position], *option, *WORDS[position:], *more]
    parsed = get_args_parser().parse_args(readable_arguments(arguments))  # as Hydra does
    assert (parsed.config_dir, parsed.overrides) == ("mine", list(WORDS))


def test_the_value_of_an_option_is_no_word() -> None:
    """`crossbench.sync` takes the words without `=` as folders."""
    arguments = ["outputs/a", "-cd", "outputs/a", "tracker.uri=x", "--config-name", "b"]
    options = ["-cd", "outputs/a", "--config-name", "b"]
    assert options_first(arguments) == (options, ["outputs/a", "tracker.uri=x"])


@pytest.mark.parametrize("module", ["serve", "sync", "selfcheck"])
def test_every_command_takes_a_config_dir_before_its_overrides(module: str, tmp_path: Path) -> None:
    backend = tmp_path / "conf" / "backend"
    backend.mkdir(parents=True)
    (backend / "mine.yaml").write_text("defaults: [noop]\nsurely_mine: 1\n", "utf-8")
    command = [sys.executable, "-m", f"crossbench.{module}", "--config-dir", "conf", "backend=mine"]
    done = subprocess.run(
        [*command, "--cfg", "job"], capture_output=True, text=True, cwd=tmp_path, timeout=100
    )
    assert "surely_mine: 1" in done.stdout, done.stderr
