"""The choices and values of conf/ for `--help`: one line each, the comment in its YAML file."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from omegaconf import DictConfig, OmegaConf

from crossbench.settings.places import conf_dir

WIDTH = 80  # columns of a usual terminal
_STUDIES, _OVERRIDE = "experiment", "override /"
# `  - backend: pytorch  # the engine`, and `batch: 32  # pairs per request`
_DEFAULT = re.compile(r"^  - (\w+): (\S+) +# (.+)$", re.MULTILINE)
_VALUE = re.compile(r"^(\w+): (\S+) +# (.+)$", re.MULTILINE)


class Line(NamedTuple):
    """A name of conf/config.yaml with its default and its comment."""

    name: str
    default: str
    about: str


def groups_text(*groups: str) -> str:
    """Return the choices of config groups, one line each. Hydra must be initialized.

    A star marks the default. Choices in a folder of `--config-dir` are listed too.
    """
    known = {line.name: line for line in _commented(_DEFAULT)}
    lines = []
    for group in groups:
        heading = known[group]
        lines.append(f"{group}=...  {heading.about}")
        lines += _aligned([
            (f"{'*' if choice == heading.default else ' '} {choice}", about(group, choice))
            for choice in _choices(group)
        ], least=14)  # fmt: skip
    return "\n".join(lines)


def values_text(*keys: str) -> str:
    """Return plain values of conf/config.yaml with their defaults, one line each."""
    known = {line.name: line for line in _commented(_VALUE)}
    rows = [(f"{key}={known[key].default}", known[key].about) for key in keys]
    return "\n".join(_aligned(rows, least=14))


def studies_text() -> str:
    """Return every study of conf/experiment with its question, wrapped."""
    rows = [(name, question(conf_dir() / _STUDIES / f"{name}.yaml")) for name in study_names()]
    return "\n".join(_aligned(rows))


def study_names() -> list[str]:
    """Return the names of all studies, sorted."""
    return sorted(path.stem for path in (conf_dir() / _STUDIES).glob("*.yaml"))


def question(study: Path) -> str:
    """Return the question of a study, without composing it: for all, that would take seconds."""
    config = OmegaConf.load(conf_dir() / "config.yaml")
    own = OmegaConf.load(study)
    assert isinstance(own, DictConfig)
    for item in own.get("defaults", []):
        if isinstance(item, str):  # a sweep that several studies share
            config = OmegaConf.merge(config, OmegaConf.load(study.parent / f"{item}.yaml"))
            continue
        ((group, choice),) = item.items()
        if group.startswith(_OVERRIDE):
            config = OmegaConf.merge(config, {group.removeprefix(_OVERRIDE): {"name": choice}})
    return str(OmegaConf.merge(config, own).study)


def about(group: str, choice: str) -> str:
    """Return the first comment line of a choice's file; empty if it begins with no comment."""
    loader = GlobalHydra.instance().config_loader()
    for source in loader.get_sources():
        path = Path(source.path) / group / f"{choice}.yaml"
        if source.scheme() == "file" and path.is_file():
            first = path.read_text("utf-8").partition("\n")[0]
            return first.lstrip("# ") if first.startswith("#") else ""
    return ""


def choices_with(group: str, key: str) -> list[str]:
    """Return the choices of a group that have a key, their own or that of a choice they extend."""
    texts = {path.stem: path.read_text("utf-8") for path in (conf_dir() / group).glob("*.yaml")}

    def has(choice: str) -> bool:
        if choice not in texts:  # of another group, or `_self_`
            return False
        if re.search(rf"^{re.escape(key)}:", texts[choice], re.MULTILINE):
            return True
        return any(map(has, _extended(texts[choice])))

    return [choice for choice in sorted(texts) if has(choice)]


def _extended(text: str) -> list[str]:
    """Return the plain texts in the defaults list of a YAML file."""
    document = OmegaConf.create(text)
    defaults = document.get("defaults", []) if isinstance(document, DictConfig) else []
    return [item for item in defaults if isinstance(item, str)]


def _choices(group: str) -> list[str]:
    loader = GlobalHydra.instance().config_loader()
    return sorted(loader.get_group_options(group, results_filter=ObjectType.CONFIG))


def _commented(pattern: re.Pattern[str]) -> Iterator[Line]:
    text = (conf_dir() / "config.yaml").read_text("utf-8")
    return (Line(*found.groups()) for found in pattern.finditer(text))


def _aligned(rows: list[tuple[str, str]], least: int = 0) -> list[str]:
    """Return the rows as lines of two columns; the second is wrapped to the width of a terminal."""
    width = max(least, *(len(name) for name, _ in rows))
    return [
        line
        for name, text in rows
        for line in textwrap.wrap(
            f"  {name.ljust(width)}  {text}".rstrip(), WIDTH, subsequent_indent=" " * (width + 4),
            break_on_hyphens=False,
        ) or [f"  {name}"]
    ]  # fmt: skip
