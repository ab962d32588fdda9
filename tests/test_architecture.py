"""Rules that import-linter cannot check: raw configs stay in settings/, tests are independent."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]
PACKAGE = REPO / "crossbench"
RAW_NAMES = {"config", "plain", "node"}
# In these modules, `config` is the config.json of a model folder
OF_A_MODEL = ("models", "backends")


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if "_pb2" not in path.name)


def is_raw(node: ast.expr) -> bool:
    """Return whether an expression is named like a config: `config`, `plain`, `result.config`."""
    if isinstance(node, ast.Name):
        return node.id in RAW_NAMES
    return isinstance(node, ast.Attribute) and node.attr in {"config", "document"}


def raw_reads(source: str) -> Iterator[int]:
    """Yield the lines that read a config by key: `config["batch"]`, `config.get("batch")`."""
    for node in ast.walk(ast.parse(source)):
        read = node.value if isinstance(node, ast.Subscript) else None
        if isinstance(node, ast.Attribute) and node.attr == "get":
            read = node.value
        if read is not None and is_raw(read):
            yield read.lineno


def test_the_check_finds_raw_reads() -> None:
    assert list(raw_reads('a = config["batch"]')) == [1]
    assert list(raw_reads('\na = result.config.get("batch")')) == [2]
    assert list(raw_reads('a = plain["backend"]["name"]')) == [1]
    assert not list(raw_reads('a = config.value("batch")'))


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_config_is_read_by_key_outside_settings(path: Path) -> None:
    """Other modules get a CellPlan, a CellConfig or a built object."""
    if path.relative_to(PACKAGE).parts[0] in ("settings", *OF_A_MODEL):
        return
    assert not list(raw_reads(path.read_text("utf-8")))


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_function_takes_a_raw_config_outside_settings(path: Path) -> None:
    """Hydra callbacks and tasks get a DictConfig, and convert it at once."""
    if path.relative_to(PACKAGE).parts[0] in ("settings", *OF_A_MODEL):
        return
    taken = [
        argument.arg
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for argument in (*node.args.args, *node.args.kwonlyargs)
        if argument.arg in RAW_NAMES
        and argument.annotation is not None
        and "Mapping" in ast.unparse(argument.annotation)
    ]
    assert not taken


def test_no_test_module_imports_another() -> None:
    """Shared code of tests is in tests/helpers."""
    for path in (REPO / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tests"):
                assert (node.module or "").startswith("tests.helpers"), f"{path}:{node.lineno}"
