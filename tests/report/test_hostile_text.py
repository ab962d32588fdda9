"""What people can type stays text in every report, as a real Markdown parser reads it."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from crossbench import compare
from crossbench.report.cell import write_cell_report
from crossbench.report.markdown import Folded, markdown
from crossbench.report.selfcheck import Block, find
from crossbench.report.selfcheck_text import markdown_report
from crossbench.report.suite import SUITE_FILE, SuiteState, write_suite_report
from crossbench.report.sweep import write_sweep_report
from crossbench.results import RunResult, Status, save_records, save_result
from crossbench.settings.cell_config import CellConfig
from tests.helpers.reports import run

HOSTILE = (
    "bad|name <script>alert(1)</script> <img src=x onerror=y> ![x](http://evil.test/p.png) "
    "[y](javascript:z) [q](&#104;ttp://evil.test) ` [bold]rich[/bold]\n# INJECTED\n\n"
    "[r]: http://evil.test\n\n    code\n```\n| a | b |\n<b>"
)


FOLDS = re.compile(r"</details>\n?|<details>\n<summary>[\w ]+</summary>\n?")  # our own


def hostile(result: RunResult) -> RunResult:
    """The result with the text in every place where people can type."""
    document = json.loads(json.dumps(result.config.document))
    document["model"] = {"_target_": "made.Model", "name": HOSTILE, "path": HOSTILE}
    document["backend"]["name"] = HOSTILE
    document["load"]["labels"] = ["model", "dataset"]
    document["dataset"] = {"_target_": "made.Dataset", "name": HOSTILE}
    document["study"] = HOSTILE
    quality = {"verdict": "cannot say", "reason": HOSTILE}
    facts = {"name": HOSTILE, "caveat": HOSTILE, HOSTILE: HOSTILE}
    return replace(
        result, config=CellConfig(document), model=facts, dataset=facts, environment=facts,
        warnings=[HOSTILE], quality=quality, flags={"disturbed": HOSTILE},
        error=HOSTILE if result.status is not Status.FINISHED else None,
    )  # fmt: skip


def write_sweep(folder: Path) -> Path:
    made = [run(400), run(900, batch=64), run(1, batch=96, status=Status.FAILED)]
    for number, item in enumerate(made):
        cell = folder / str(number)
        cell.mkdir(parents=True)
        save_result(hostile(item.result), cell)
        if item.records:
            save_records(item.records, cell)
        write_cell_report(cell)
    write_sweep_report(folder)
    return folder


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("suite")
    one, two = write_sweep(folder / "one"), write_sweep(folder / "two")
    state = SuiteState(("one", "two", "three"), (HOSTILE,), {"three": HOSTILE})
    (folder / SUITE_FILE).write_text(json.dumps(asdict(state)), "utf-8")
    write_suite_report(folder)
    compare.main([str(one), str(two), f"--output={folder / 'comparison'}"])
    (folder / "selfcheck").mkdir()
    block = Block((hostile(run(400).result), hostile(run(1, status=Status.FAILED).result)))
    found = find(HOSTILE, [block] * 4, 5, 0.05, 0.02, seed=0)
    checked = markdown_report(found, f"python -m x {HOSTILE}", HOSTILE)
    (folder / "selfcheck" / "report.md").write_text(checked, "utf-8")
    places = {
        "cell": one / "0", "failed cell": one / "2", "sweep": one, "suite": folder,
        "comparison": folder / "comparison", "selfcheck": folder / "selfcheck",
    }  # fmt: skip
    return {name: (place / "report.md").read_text("utf-8") for name, place in places.items()}


def tokens(text: str) -> Iterator[Token]:
    for token in MarkdownIt("commonmark", {"html": True}).enable("table").parse(text):
        yield token
        yield from token.children or ()


@pytest.mark.parametrize(
    "name", ["cell", "failed cell", "sweep", "suite", "comparison", "selfcheck"]
)
def test_no_text_becomes_markup(name: str, reports: dict[str, str]) -> None:
    text = reports[name]
    assert "evil.test" in text  # it is there, as text
    found = list(tokens(text))
    html = [token.content for token in found if token.type.startswith("html")]
    assert not [text for text in html if not FOLDS.fullmatch(text)]
    links = [str(token.attrs.get("href", token.attrs.get("src", ""))) for token in found]
    assert not [link for link in links if ":" in link or link.startswith("/")]
    after_heading = [b for a, b in itertools.pairwise(found) if a.type == "heading_open"]
    assert not [token.content for token in after_heading if token.content.startswith("INJECTED")]
    assert not [token for token in found if token.type == "fence"]


def test_tables_keep_their_columns(reports: dict[str, str]) -> None:
    for text in reports.values():
        rows = [line for line in text.splitlines() if line.startswith("| ")]
        assert rows
        assert all(row.endswith(" |") for row in rows)


def test_links_and_plots_of_our_own_stay() -> None:
    own = "- [one](one/report.md)\n- [Studies](#studies)\n\n![p95](plots/p95.png)"
    code = "## Why\n\n    <b> stays, it is code"
    assert markdown([own, "", code]) == f"{own}\n\n{code}\n"
    assert markdown(["    a < b"]) == "    a < b\n"
    folded = markdown([Folded("All", "a <b>")])
    assert folded == "<details>\n<summary>All</summary>\n\na &lt;b>\n\n</details>\n"
