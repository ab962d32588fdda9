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


LOADERS = {"from_pretrained", "CrossEncoder", "SentenceTransformer"}


def careless_loads(source: str) -> Iterator[str]:
    """Yield the calls that load a model folder and do not say that its code is never run.

    A dict that is unpacked (`**local`) counts if the module has one with that key.
    """
    tree = ast.parse(source)
    dicts = [node for node in ast.walk(tree) if isinstance(node, ast.Dict)]
    said = any(
        isinstance(key, ast.Constant) and key.value == "trust_remote_code"
        and isinstance(value, ast.Constant) and value.value is False
        for node in dicts
        for key, value in zip(node.keys, node.values, strict=True)
    )  # fmt: skip
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call):
            continue
        name = getattr(call.func, "attr", getattr(call.func, "id", ""))
        if name not in LOADERS:
            continue
        given = {word.arg: word.value for word in call.keywords}
        value = given.get("trust_remote_code")
        refused = isinstance(value, ast.Constant) and value.value is False
        if not refused and not (said and None in given):
            yield f"{call.lineno}: {ast.unparse(call)}"


def test_the_check_finds_careless_loads() -> None:
    assert list(careless_loads("AutoConfig.from_pretrained(folder)"))
    assert list(careless_loads("CrossEncoder(path, trust_remote_code=True)"))
    assert not list(careless_loads("CrossEncoder(path, trust_remote_code=False)"))
    assert not list(careless_loads("a = {'trust_remote_code': False}\nA.from_pretrained(f, **a)"))


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_loader_is_told_never_to_run_a_folder_s_code(path: Path) -> None:
    assert not list(careless_loads(path.read_text("utf-8")))


# Pickles between a process and its own child: they never lie in a file
OF_OUR_PROCESSES = {"serving/frames.py"}
# The evaluated text is an annotation in a class of crossbench
OF_OUR_CLASSES = {"settings/field_types.py"}


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_stored_data_is_never_executed(path: Path) -> None:
    if str(path.relative_to(PACKAGE)) in OF_OUR_PROCESSES | OF_OUR_CLASSES:
        return
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            assert not {"pickle", "marshal", "shelve"} & {item.name for item in node.names}
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            assert called not in ("eval", "exec", "yaml.load")
            assert called != "torch.load" or given.get("weights_only") == "True"
            assert called != "np.load" or given.get("allow_pickle") == "False"
