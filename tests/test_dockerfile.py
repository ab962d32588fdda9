"""The Dockerfile: its files exist, its commands are those of the documentation, and it is no root.

No image is built here, which needs a daemon and the network.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

REPO = Path(__file__).resolve().parents[1]


def instructions() -> list[tuple[str, str]]:
    """Return each instruction with its arguments; continued lines are joined."""
    text = (REPO / "Dockerfile").read_text("utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    found = [line.partition(" ") for line in joined.splitlines() if line.strip()]
    return [(name, rest.strip()) for name, _, rest in found]


def values(name: str) -> list[str]:
    return [rest for found, rest in instructions() if found == name]


def copied() -> list[str]:
    return [
        source
        for rest in values("COPY")
        for source in [word for word in rest.split() if not word.startswith("--")][:-1]
    ]


def test_the_copied_files_exist_and_are_not_ignored() -> None:
    lines = (REPO / ".dockerignore").read_text("utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    kept = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    assert set(copied()) == kept
    for source in copied():
        assert (REPO / source).exists(), source
    assert any(fnmatch("crossbench/__pycache__/x.pyc", rule) for rule in rules[1:])


def test_every_file_that_the_build_needs_is_copied() -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text("utf-8"))
    build = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {project["project"]["readme"], *project["project"]["license-files"]}
    needed |= {*build["packages"], *build["force-include"], "pyproject.toml", "constraints.txt"}
    assert set(copied()) == needed


def test_it_installs_as_the_readme_does() -> None:
    (command,) = (rest for rest in values("RUN") if "pip install" in rest)
    words = shlex.split(command)
    assert words.pop(words.index("--no-cache-dir"))  # the image needs no cache
    words.remove("$PIP_ARGS")
    readme = (REPO / "README.md").read_text("utf-8")
    (line,) = re.findall(r"^ +(python -m pip install -c .*?)(?: +#.*)?$", readme, re.MULTILINE)
    assert words == [word.replace(".[onnx]", ".[$EXTRAS]") for word in shlex.split(line)]


def test_its_arguments_are_extras_and_the_index_of_ci() -> None:
    arguments = dict(rest.split("=", 1) for rest in values("ARG"))
    project = tomllib.loads((REPO / "pyproject.toml").read_text("utf-8"))["project"]
    assert set(arguments["EXTRAS"].split(",")) <= set(project["optional-dependencies"])
    ci = yaml.safe_load((REPO / ".github/workflows/ci.yml").read_text("utf-8"))
    assert arguments["PIP_ARGS"].strip('"') == ci["jobs"]["linux"]["env"]["PIP_ARGS"]


def test_it_runs_as_an_ordinary_user_on_a_supported_python() -> None:
    names = [name for name, _ in instructions()]
    (user,) = values("USER")
    assert int(user.partition(":")[0]) >= 1000
    assert names.index("USER") < names.index("COPY") < names.index("CMD")
    assert all("--chown=1000:1000" in rest for rest in values("COPY"))
    project = tomllib.loads((REPO / "pyproject.toml").read_text("utf-8"))["project"]
    (image,) = values("FROM")
    version = re.findall(r"python:([\d.]+)", image)
    assert [f"Programming Language :: Python :: {number}" for number in version] == [
        item for item in project["classifiers"] if item.endswith(f":: {version[0]}")
    ]


@pytest.mark.parametrize("command", ["docker build", "docker run"])
def test_its_comment_has_commands_of_the_documentation(command: str) -> None:
    page = " ".join((REPO / "docs/configuration.md").read_text("utf-8").split())
    text = (REPO / "Dockerfile").read_text("utf-8").replace("\\\n#", " ")
    found = re.findall(rf"^#   ({command} .*)$", text, re.MULTILINE)
    assert len(found) == 2
    for line in found:
        assert " ".join(re.split(r" {2,}(?=[a-z]+ )(?!python)", line)[0].split()) in page
