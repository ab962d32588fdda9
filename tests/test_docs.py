"""The documentation: links work, commands and overrides exist, the README is short."""

from __future__ import annotations

import importlib.util
import re
import shlex
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
import yaml

REPO = Path(__file__).resolve().parents[1]
README = REPO / "README.md"
DOCS = sorted((REPO / "docs").glob("*.md"))
SECURITY = REPO / "SECURITY.md"
DOCUMENTS = [README, REPO / "CONTRIBUTING.md", REPO / "CHANGELOG.md", SECURITY, *DOCS]
GUIDES = [
    README,
    *(path for path in DOCS if path.name != "int8.md"),
]  # int8.md has only option names
MOST_WORDS = 900

_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:^ {4}.*\S.*\n)+", re.MULTILINE)
_INLINE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
_WRITTEN = re.compile(r"> \S+/(\w+/[\w-]+)\.yaml")  # a choice that a command writes
_OVERRIDE = re.compile(r"\+{0,2}([a-z_]+(?:\.[a-z0-9_]+)*)=(.*)", re.DOTALL)
_KEY = re.compile(r"[a-z]+(?:\.[a-z_]+)+")
_OWN_OF_COMMANDS = {"studies", "resume", "blocks", "slower", "sweep"}  # not of cells
_ENDINGS = {".json", ".log", ".md", ".parquet", ".png", ".safetensors"}


def name(path: Path) -> str:
    return path.relative_to(REPO).as_posix()


def prose(path: Path, *, inline: bool = False) -> str:
    """Return the text without code blocks, and without inline code unless `inline`."""
    text = _INDENTED.sub("", _FENCED.sub("", path.read_text("utf-8")))
    return text if inline else _INLINE.sub("", text)


def commands(path: Path) -> list[str]:
    """Return the lines of indented blocks without comments; continued lines are joined."""
    blocks = _INDENTED.findall(_FENCED.sub("", path.read_text("utf-8")))
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [re.sub(r"\s+#.*", "", line).strip() for line in lines]


def anchors(path: Path) -> set[str]:
    """Return the anchors that GitHub generates for the headings."""
    text = _FENCED.sub("", path.read_text("utf-8"))
    found: list[str] = []
    for heading in _HEADING.findall(text):
        plain = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found.append(f"{plain}-{found.count(plain)}" if plain in found else plain)
    return set(found)


def make_targets() -> set[str]:
    makefile = (REPO / "Makefile").read_text("utf-8")
    return set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))


def is_key(code: str) -> bool:
    """Return whether inline code is a key inside a group of conf/, such as `pool.workers`."""
    named = _KEY.fullmatch(code) and Path(code).suffix not in _ENDINGS
    return bool(named) and group_of(code.split(".")[0]) is not None


def group_of(key: str) -> Path | None:
    folder = REPO / "conf" / key
    return folder if folder.is_dir() else None


def has_key(document: Any, keys: list[str]) -> bool:
    for key in keys:
        if not isinstance(document, dict) or key not in document:
            return False
        document = document[key]
    return True


def exists(key: str, value: str, written: Collection[str] = ()) -> bool:
    """Return whether conf/ has the key and, for a group, the choices.

    `written` are choices that the document itself writes: `target/infinity`.
    """
    if key.startswith("hydra.") or key in _OWN_OF_COMMANDS:
        return True
    group = group_of(key)
    if group is not None:
        choices = [choice for choice in value.split(",") if choice not in ("", "…", "STUDY")]
        files = [group / f"{choice}.yaml" for choice in choices]
        return all(file.is_file() or f"{group.name}/{file.stem}" in written for file in files)
    first, *rest = key.split(".")
    folder = group_of(first)
    if folder is None or not rest:
        files, keys = [REPO / "conf" / "config.yaml"], [first, *rest]
    else:
        common = [REPO / "conf/request.yaml"] if first == "load" else []  # request@load
        files, keys = [*sorted(folder.glob("*.yaml")), *common], rest
    return any(has_key(yaml.safe_load(file.read_text("utf-8")), keys) for file in files)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_links_point_to_existing_files_and_headings(document: Path) -> None:
    broken = []
    for link in _LINK.findall(prose(document)):
        if link.startswith(("https://", "http://")):
            continue
        file, _, anchor = link.partition("#")
        target = (document.parent / file).resolve() if file else document
        if not target.is_file() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


def test_every_page_of_docs_can_be_reached_from_the_readme() -> None:
    reached, waiting = set[Path](), [README]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        links = (link.partition("#")[0] for link in _LINK.findall(prose(page)) if "://" not in link)
        targets = {(page.parent / file).resolve() for file in links if file.endswith(".md")}
        waiting += targets - reached
    assert set(DOCS) <= reached


def test_every_promise_names_existing_tests() -> None:
    rows = [line for line in SECURITY.read_text("utf-8").splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 5
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
        assert named, row
        for file, test in named:
            assert f"def {test}(" in (REPO / file).read_text("utf-8"), row


def test_the_readme_is_short() -> None:
    assert len(README.read_text("utf-8").split()) <= MOST_WORDS


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_modules_targets_and_extras_exist(document: Path) -> None:
    text = document.read_text("utf-8")
    project = tomllib.loads((REPO / "pyproject.toml").read_text("utf-8"))["project"]
    extras = re.findall(r"'(?:\.|crossbench)\[([a-z,]+)\]'", text)
    unknown = {word for found in extras for word in found.split(",")}
    unknown -= set(project["optional-dependencies"])
    for line in [*commands(document), *_INLINE.findall(text)]:
        unknown |= set(re.findall(r"^make ([a-z][a-z-]*)", line)) - make_targets()
        unknown |= {
            module
            for module in re.findall(r"python -m ([\w.]+)", line)
            if importlib.util.find_spec(module) is None
        }
    assert not unknown


@pytest.mark.parametrize("document", GUIDES, ids=name)
def test_overrides_exist(document: Path) -> None:
    codes = _INLINE.findall(prose(document, inline=True))
    words = [word for line in commands(document) for word in shlex.split(line)]
    words += [word for code in codes for word in code.split()]
    given = [(found[1], found[2]) for word in words if (found := _OVERRIDE.fullmatch(word))]
    given += [(code, "") for code in codes if is_key(code)]
    assert given or not commands(document)
    written = {found[1] for line in commands(document) for found in _WRITTEN.finditer(line)}
    unknown = [f"{key}={value}" for key, value in given if not exists(key, value, written)]
    assert not unknown


def test_pre_commit_runs_the_commands_of_make_lint() -> None:
    makefile = (REPO / "Makefile").read_text("utf-8")
    (recipe,) = re.findall(r"^lint:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    linted = re.findall(r"^\t\$\(BIN\)/(.+)$", recipe, re.MULTILINE)
    settings = yaml.safe_load((REPO / ".pre-commit-config.yaml").read_text("utf-8"))
    hooks = [hook["entry"] for repo in settings["repos"] for hook in repo["hooks"]]
    assert linted
    assert hooks == [f".venv/bin/{command}" for command in linted]


def test_the_workflow_uses_existing_targets() -> None:
    workflow = yaml.safe_load((REPO / ".github/workflows/ci.yml").read_text("utf-8"))
    triggers = workflow[True]  # YAML 1.1 reads `on` as true
    assert triggers["push"] == {"branches": ["main"]}
    assert "pull_request" in triggers
    pythons = workflow["jobs"]["linux"]["strategy"]["matrix"]["python"]
    project = tomllib.loads((REPO / "pyproject.toml").read_text("utf-8"))["project"]
    classified = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    assert pythons == classified
    lines = [
        line
        for job in workflow["jobs"].values()
        for step in job["steps"]
        for line in step.get("run", "").splitlines()
    ]
    assert {"make test-full", ".ci/run"} <= set(lines)
    assert "python -m crossbench -m backend=mps,mlx batch=32,96 max_seconds=5" in lines
    targets = [line.split()[1] for line in lines if line.startswith("make ")]
    assert set(targets) <= make_targets()


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_no_section_is_empty(document: Path) -> None:
    """A heading that another one of its level follows at once is a slip of a merge."""
    text = _FENCED.sub("", document.read_text("utf-8"))
    lines = [line for line in text.splitlines() if line.strip()]
    levels = [len(line.split()[0]) if _HEADING.match(line) else 0 for line in lines]
    following = [*levels[1:], 1]
    pairs = zip(lines, levels, following, strict=True)
    assert not [line for line, level, after in pairs if 0 < after <= level]
