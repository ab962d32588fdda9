"""`--help` of every command: short, within 80 columns, and each choice with a line of its own."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

from crossbench.settings.choices import choices_with, study_names
from crossbench.settings.places import conf_dir

# Groups whose choices are chosen by the commands, by studies or not by users at all
UNLISTED = {"experiment", "hydra", "predecessor", "server"}


@functools.cache
def help_of(module: str, *options: str) -> str:
    command = [sys.executable, "-m", module, *options, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def test_help_has_each_choice_with_its_comment() -> None:
    text = help_of("crossbench")
    folders = {path.parent.name for path in conf_dir().glob("*/*.yaml")} - UNLISTED
    for group in folders:
        choices = text.partition(f"\n{group}=...")[2]
        for path in (conf_dir() / group).glob("*.yaml"):
            comment = path.read_text("utf-8").partition("\n")[0].removeprefix("# ")
            line = rf"^  [ *] {re.escape(path.stem)} +{re.escape(comment)}$"
            assert re.search(line, choices, re.MULTILINE), path
    assert text.count("\n  * ") == len(folders)  # each group has one default
    assert "_target_" not in text
    assert text.count("\n") <= 100
    examples = [line for line in text.splitlines() if line.startswith("  python -m crossbench")]
    assert len(examples) == 5


# The texts of these have no choices, and change rarely
RARELY = [pytest.param(name, marks=pytest.mark.slow) for name in
          ("compare", "dashboard", "doctor", "report", "selfcheck", "sync", "trace")]  # fmt: skip


@pytest.mark.parametrize("name", ["", "client", "serve", "suite", *RARELY])
def test_help_fits_a_terminal_and_says_where_more_stands(name: str) -> None:
    module = f"crossbench.{name}".rstrip(".")
    text = help_of(module)
    assert max(map(len, text.splitlines())) <= 80
    assert f"python -m {module}" in text.partition("\n")[0]
    assert "docs/" in text
    assert "Powered by" not in text
    assert "\n\n\n" not in text


def test_help_of_the_suite_has_the_question_of_each_study() -> None:
    words = " ".join(help_of("crossbench.suite").split())
    for name in study_names():
        assert re.search(rf" {name} [A-Z][^?]+\?", words), name


def test_choices_of_a_folder_of_the_user_are_listed(tmp_path: Path) -> None:
    (tmp_path / "backend").mkdir()
    (tmp_path / "backend" / "bag.yaml").write_text("# A bag of words\nname: bag\n", "utf-8")
    text = help_of("crossbench", "--config-dir", str(tmp_path))
    assert "    bag           A bag of words\n" in text


def test_the_choices_that_have_a_key() -> None:
    assert choices_with("load", "rate") == ["constant", "gamma", "poisson"]
    assert choices_with("backend", "service_kind") == ["noop"]
    assert choices_with("backend", "nothing") == []
