"""The board: figures, settings and facts of one cell, how a sweep stands, and stored sweeps."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from crossbench.dashboard.board import Board, SweepState
from crossbench.dashboard.charts import NAME_SHARE, NUMBER_SHARE, marks
from crossbench.dashboard.content import (
    OUTCOMES,
    cell_title,
    cells_html,
    status_text,
    subtitle,
    sweep_text,
)
from crossbench.dashboard.journal import JournalReader
from crossbench.dashboard.process import JOURNAL_FILE
from crossbench.dashboard.stored import stored_board
from crossbench.dashboard.tiles import tiles
from crossbench.dashboard.watch import Watcher
from crossbench.errors import ConfigError
from crossbench.events import (
    MEASURING,
    CellEnded,
    CellStarted,
    Event,
    MeasuredSoFar,
    Recorded,
    RunEnded,
    ServerListens,
    StageStarted,
    SweepStarted,
)
from crossbench.measure.catalogue import (
    CORES_USED,
    PADDING_WASTE,
    PAIRS_PER_S,
    REQUESTS_OK,
    latency,
)
from crossbench.models.folder import ModelFolder
from crossbench.results import Status, save_result
from crossbench.serving import inference_pb2 as pb
from crossbench.sweeps.folder import take_new
from crossbench.system.stop_signals import EXIT_INTERRUPTED
from tests.helpers.dashboards import SweepJournal, figures
from tests.helpers.measured import measured


def tell(board: Board, event: Event, time_s: float = 0.0, cell: int | None = None) -> None:
    board.apply(Recorded(event, time_s, cell))


def measuring_board(cells: int = 6) -> Board:
    """A sweep whose first cell is measured; its server has sent two messages."""
    board = Board(None)
    tell(board, SweepStarted("s", cells))
    tell(board, CellStarted("a", {"model": "m", "backend": "onnx", "batch": "1"}), 0.0, 0)
    tell(board, ServerListens("127.0.0.1:1", {}), 1.0, 0)
    board.connected(pb.ServerInfo(models=[pb.ModelInfo(name="m", backend="onnx", device="cpu")]))
    tell(board, StageStarted(MEASURING), 2.0, 0)
    tell(board, MeasuredSoFar({PAIRS_PER_S.name: 80.0, latency(50).name: 5.0}), 3.0, 0)
    for second in (1.0, 2.0):
        board.sample(
            pb.Metrics(
                since_reset_s=second, cpu_s=10.0 + 1.5 * second, cpu_cores=1.5, rss_peak_mb=200,
                batches=4, batch_pairs=32, batch_tokens=60, tokens_computed=80, pairs=32,
            ),
            (), 3.0 + second,
        )  # fmt: skip
    return board


def values(board: Board) -> dict[str, str]:
    return {tile.label: tile.value for tile in tiles(board, board.shown)}


def test_a_running_cell_has_the_figures_of_client_and_server_so_far() -> None:
    board = measuring_board()
    shown = board.shown
    assert shown is not None
    assert shown.figures[CORES_USED.name] == pytest.approx(1.5)
    assert shown.figures[PADDING_WASTE.name] == pytest.approx(0.25)
    found = values(board)
    assert (found["Throughput"], found["Latency p50"]) == ("80.0", "~5.00")
    assert (found["Micro-batch"], found["Memory, peak"]) == ("8.00", "200")


def test_with_the_next_cell_everything_of_the_last_one_is_gone() -> None:
    board = measuring_board()
    tell(board, CellEnded("finished", None, False, figures(0)), 6.0, 0)
    first = board.shown
    assert first is not None
    assert values(board)["Throughput"] == "1,000"
    # A message of the first server that arrives late
    board.sample(pb.Metrics(since_reset_s=3.0, cpu_s=99.0, rss_peak_mb=999.0), (), 6.1)
    assert first.figures == figures(0)
    tell(board, CellStarted("b", {"model": "m", "backend": "noop", "batch": "2"}), 7.0, 1)
    assert set(values(board).values()) == {"–"}
    assert board.settings["batch"] == "2"
    second = board.shown
    assert second is not None
    assert subtitle(second.facts, second.settings) == "m · noop"
    board.sample(pb.Metrics(since_reset_s=4.0, cpu_s=99.0, rss_peak_mb=999.0), (), 7.1)
    assert set(values(board).values()) == {"–"}


def test_the_counters_of_another_server_are_not_those_of_the_last_one() -> None:
    board = measuring_board()
    tell(board, CellEnded("finished", None, False, {}), 6.0, 0)
    tell(board, CellStarted("b", {}), 7.0, 1)
    tell(board, ServerListens("127.0.0.1:2", {}), 8.0, 1)
    board.connected(pb.ServerInfo(models=[pb.ModelInfo(name="m")]))
    board.sample(pb.Metrics(since_reset_s=3.0, pairs=5), (), 9.0)  # it is older than the last one
    assert board.server.last is not None
    assert (board.server.last.interval.pairs, board.server.last.pairs_per_s) == (5, None)
    board.sample(pb.Metrics(since_reset_s=4.0, pairs=9), (), 10.0)
    assert (board.server.last.interval.pairs, board.server.last.pairs_per_s) == (4, 4.0)


def test_the_figures_of_the_table_are_those_of_the_tiles() -> None:
    board = measuring_board()
    tell(board, CellEnded("finished", None, False, figures(3)), 6.0, 0)
    html = cells_html(board, board.shown)
    for label in ("Throughput", "Latency p50", "Latency p95", "Latency p99", "Memory, peak"):
        assert f">{values(board)[label]}</td>" in html


def test_the_page_says_how_the_sweep_stands() -> None:
    board = measuring_board(cells=2)
    assert sweep_text(board, 5.0) == (
        "0 of 2 cells done · time left: unknown until the first cell has ended"
    )
    tell(board, CellEnded("finished", None, False, figures(0)), 10.0, 0)
    assert (status_text(board), sweep_text(board, 10.0)) == (
        "waiting for the next cell", "1 of 2 cells done · 10 s left",
    )  # fmt: skip
    tell(board, CellStarted("b", {}), 10.0, 1)
    tell(board, CellEnded("unsupported", "no int4", False, {}), 11.0, 1)
    assert status_text(board) == "2 of 2 cells, complete; the report is being written"
    assert sweep_text(board, 12.0) == "2 of 2 cells, complete · 1 unsupported"
    tell(board, RunEnded("report: r.md", False), 12.0)
    assert status_text(board) == "2 of 2 cells, complete; report: r.md"


def test_an_interruption_is_told_at_once() -> None:
    board = measuring_board(cells=6)
    tell(board, CellEnded("failed", "interrupted by Ctrl-C", True, {}), 6.0, 0)
    assert status_text(board) == "interrupted after 0 of 6 cells; the report is being written"
    assert sweep_text(board, 7.0) == "interrupted after 0 of 6 cells"
    assert '<span class="badge interrupted">interrupted</span>' in cells_html(board, board.shown)
    tell(board, RunEnded("report: r.md", True), 8.0)
    assert status_text(board) == "interrupted after 0 of 6 cells; report: r.md"
    # The sweep is resumed
    tell(board, SweepStarted("s", 6), 20.0)
    assert (board.sweep_state, board.status) == (SweepState.RUNNING, "waiting")


def test_a_run_that_ended_early_leaves_no_cell_running() -> None:
    board = measuring_board(cells=6)
    tell(board, RunEnded("results: here", False), 9.0)
    assert status_text(board) == "ended after 0 of 6 cells; results: here"
    assert [row.outcome for row in board.rows] == ["interrupted"]


def test_every_status_of_a_result_has_a_colour() -> None:
    assert set(Status) < set(OUTCOMES)


@pytest.mark.parametrize(
    ("starts", "names"),
    [
        ([10, 50, 100], ["cell 1", "cell 2", "cell 3"]),
        ([10, 50, 58, 90], ["cell 1", "2", "3", "4"]),
        ([20, 50, 51, 90], ["cell 1", "", "3", "4"]),  # the third cell follows at once
        ([20, 28, 90], ["1", "2", "3"]),
        ([0, 40], ["", "cell 2"]),  # too near to the numbers of the axis
        ([], []),
    ],
)
def test_names_of_cells_do_not_overlap(starts: list[float], names: list[str]) -> None:
    assert NUMBER_SHARE < 0.08 < NAME_SHARE
    numbered = [(at, number) for number, at in enumerate(starts, 1)]
    assert [mark["name"] for mark in marks(numbered, -1.0, 110.0)] == names


# Stored sweeps


def test_a_sweep_is_shown_from_its_journal(tmp_path: Path) -> None:
    journal = SweepJournal(tmp_path / JOURNAL_FILE, cells=6, instant=3)
    journal.write(started=6, now_s=time.time())
    board = stored_board(tmp_path)
    assert (len(board.done), board.sweep_state) == (5, SweepState.INCOMPLETE)  # it was killed
    assert board.cells[2].figures == figures(2)
    assert [row.outcome for row in board.rows][3:] == ["unsupported", "finished", "interrupted"]
    assert status_text(board) == f"ended after 5 of 6 cells; results: {tmp_path}"


def test_a_sweep_without_a_journal_is_shown_from_its_results(tmp_path: Path) -> None:
    for number, batch in enumerate((8, 32)):
        folder = tmp_path / str(number)
        folder.mkdir()
        save_result(measured(100.0 + number, config={"batch": batch}), folder)
    (tmp_path / "report.md").touch()
    board = stored_board(tmp_path)
    assert [row.label for row in board.rows] == ["batch=8", "batch=32"]
    assert board.cells[1].figures[PAIRS_PER_S.name] == 101.0
    assert status_text(board) == f"2 of 2 cells, complete; report: {tmp_path}/report.md"
    one = stored_board(tmp_path / "1")
    assert (status_text(one), one.cells_planned) == (f"complete; results: {tmp_path}/1", 1)


def test_a_folder_that_cannot_be_shown_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist: give the folder of a sweep"):
        stored_board(tmp_path / "nothing")
    with pytest.raises(ConfigError, match="no cell with a result"):
        stored_board(tmp_path)
    taken = take_new(tmp_path / "running")
    with pytest.raises(ConfigError, match="still runs"):
        stored_board(taken.path)
    taken.release()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "there is nothing to show: give sweep=FOLDER"),
        (["sweep=.", "server.address=127.0.0.1:1"], "exclude each other"),
    ],
)
def test_the_command_says_what_is_missing(arguments: list[str], message: str) -> None:
    command = [sys.executable, "-m", "crossbench.dashboard", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("crossbench: ")
    assert message in done.stderr


def test_a_journal_of_a_running_sweep_is_followed(tmp_path: Path) -> None:
    journal = SweepJournal(tmp_path / JOURNAL_FILE, cells=24)
    journal.write(started=17, now_s=100.0)
    board = Board(None)
    Watcher(board, journal.path).read_journal()
    assert (board.current, len(board.done), board.status) == (16, 16, MEASURING)
    assert board.windows[-1].so_far_per_s == 95.0


@pytest.mark.slow
def test_a_sweep_that_was_interrupted_is_shown_so(
    tmp_path: Path, seeded_model: ModelFolder
) -> None:
    command = [
        sys.executable, "-m", "crossbench", "-m", "backend=noop", "batch=4,8,16", "max_seconds=60",
        "warmup_requests=1", "warmup_max_seconds=0.2", "stop=fixed", "dataset.queries=4",
        "dataset.passages_per_query=40", "quality=none", "dashboard.port=0", "tracker=none",
        f"cache_dir={seeded_model.path.parent}", f"outputs_dir={tmp_path}",
    ]  # fmt: skip
    sweep = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert sweep.stderr is not None
    next(line for line in sweep.stderr if "batch=4: measuring" in line)
    (folder,) = tmp_path.iterdir()
    with pytest.raises(ConfigError, match="still runs"):
        stored_board(folder)
    reader, board = JournalReader(folder / JOURNAL_FILE), Board(None)
    deadline_s = time.monotonic() + 60
    while not (board.shown and board.shown.figures):  # the first figures of the running cell
        assert time.monotonic() < deadline_s
        for recorded in reader.new():
            board.apply(recorded)
        time.sleep(0.1)
    assert board.shown.figures[REQUESTS_OK.name] > 0
    sweep.send_signal(signal.SIGINT)
    sweep.communicate(timeout=60)
    assert sweep.returncode == EXIT_INTERRUPTED
    stored = stored_board(folder)
    assert status_text(stored) == f"interrupted after 0 of 3 cells; report: {folder}/report.md"
    assert [row.outcome for row in stored.rows] == ["interrupted"]
    assert stored.rows[0].figures[REQUESTS_OK.name] > 0


def test_cells_of_several_machines_run_side_by_side_and_say_where() -> None:
    board = Board(None)
    tell(board, SweepStarted("s", 4))
    for cell, machine in enumerate(("node-a", "node-b")):
        tell(board, CellStarted(f"batch={cell}", {}, machine), 0.0, cell)
    tell(board, CellEnded("finished", None, False, {}), 10.0, 0)
    tell(board, CellStarted("batch=2", {}, "node-a"), 10.0, 2)
    # Three cells of 10 s are left, of which 10 s are over on one of two machines
    assert board.time_left_s(10.0) == 10.0
    html = cells_html(board, board.shown)
    assert "node-a" in html
    assert "node-b" in html
    assert board.shown is not None
    assert cell_title(board, board.shown) == "Cell 3 of 4: batch=2 on node-a"
