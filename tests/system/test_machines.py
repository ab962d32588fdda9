"""Tests on unusual machines: a proxy, no home folder, broken matplotlib settings, no disk space."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import matplotlib as mpl

from crossbench.measure.statistics import summarise
from crossbench.models.folder import ModelFolder
from crossbench.report.cell import write_cell_report
from crossbench.report.sweep import write_sweep_report
from crossbench.results import RunResult, Status, save_records, save_result
from crossbench.settings.cell_config import CellConfig
from crossbench.sweeps.progress import SteadyConsole
from crossbench.types import RequestRecord
from tests.helpers.places import REPO

CODE = {**os.environ, "PYTHONPATH": str(REPO)}
RECORDS = [
    RequestRecord(i, i / 10, i / 10, i / 10 + 0.09, 8, 700, 0, 0.3, 0.1, 80.0, "OK")
    for i in range(40)
]
PLOTS = {"latency_cdf", "over_time", "throughput_latency", "stages"}


def cell(folder: Path) -> Path:
    """Write the files of a finished cell to `folder`."""
    folder.mkdir(parents=True)
    settings = {"batch": 8, "concurrency": 1, "backend": {"name": "made"}, "quant": {"name": "x"}}
    metrics = summarise(RECORDS)
    save_result(
        RunResult(Status.FINISHED, CellConfig(settings), folder.name, metrics=metrics), folder
    )
    save_records(RECORDS, folder)
    return folder


def unknown_user_prefix() -> list[str]:
    """Return a command prefix that runs a command as a user id without an account.

    Returns an empty list if the system does not allow it.
    """
    command = ["unshare", "--user", "--map-user=12345"]
    works = shutil.which("unshare") and not subprocess.run([*command, "true"]).returncode
    return command if works else []


def test_a_cell_runs_on_an_unusual_machine(seeded_model: ModelFolder, tmp_path: Path) -> None:
    """It has a proxy, invalid matplotlib settings, no home, no user, only ASCII, no asserts."""
    proxied: list[bytes] = []
    outputs = tmp_path / "outputs"
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nno.such.key: 1\nfont.size: 90\n")
    with socket.create_server(("127.0.0.1", 0)) as proxy:

        def accept_all() -> None:
            with contextlib.suppress(OSError):
                while True:
                    proxied.append(proxy.accept()[0].recv(1000))

        threading.Thread(target=accept_all, daemon=True).start()
        url = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        proxies = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy", "HTTP_PROXY")
        environment = {
            **{key: value for key, value in CODE.items() if key not in ("HOME", "USER", "LOGNAME")},
            **dict.fromkeys(proxies, url),
            "CROSSBENCH_CACHE": str(seeded_model.path.parent),
            "MPLBACKEND": "nonsense",
            "MPLCONFIGDIR": "/proc/nowhere",
            "PYTHONOPTIMIZE": "2",
            "LC_ALL": "C",
            "PYTHONUTF8": "0",
            "PYTHONCOERCECLOCALE": "0",
            "PYTHONIOENCODING": "ascii",
            "TERM": "dumb",
            "COLUMNS": "1",
            "TZ": "Nowhere/City",
        }
        command = [
            *(sys.executable, "-m", "crossbench", "backend=noop", "max_seconds=1"),
            *("warmup_requests=1", "warmup_max_seconds=0.2", "stop=fixed"),
            *("dataset.queries=4", "dataset.passages_per_query=40"),
            *("dashboard=none", "tracker=none", f"outputs_dir={outputs}"),
        ]
        done = subprocess.run(
            [*unknown_user_prefix(), *command],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            timeout=240,
        )
    output = (done.stdout + done.stderr).decode("ascii")
    assert done.returncode == 0, output
    assert proxied == []
    assert "Traceback" not in output
    assert "noop fp32 batch=32 concurrency=1: writing the report\n" in output
    assert "-------" in output
    (report,) = outputs.glob("*/0/report.md")
    assert "Missing plot" not in report.read_text("utf-8")
    assert {path.stem for path in (report.parent / "plots").glob("*.png")} == PLOTS
    assert json.loads((report.parent / "result.json").read_text("utf-8"))["status"] == "finished"


def test_a_user_without_a_home_gets_a_temporary_one(tmp_path: Path) -> None:
    """MLflow and OpenVINO require a home folder."""
    code = (
        "from pathlib import Path; from crossbench.system.command import command\n"
        "with command(): print(Path.home(), Path.home().is_dir())"
    )
    environment = {**CODE, "HOME": "", "TMPDIR": str(tmp_path)}
    for name in ("CROSSBENCH_CACHE", "USER", "LOGNAME"):
        environment.pop(name, None)
    command = [*unknown_user_prefix(), sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    home, is_folder = done.stdout.split()
    assert is_folder == "True"
    if unknown_user_prefix():
        assert Path(home).parent == tmp_path
        assert "has no home folder" in done.stderr
        assert "set HOME, or CROSSBENCH_CACHE=DIR" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_plots_neither_use_nor_change_global_matplotlib_settings(tmp_path: Path) -> None:
    plain = cell(tmp_path / "0")
    write_cell_report(plain)
    with mpl.rc_context({"text.usetex": True, "font.size": 90, "savefig.dpi": 20}):
        changed = cell(tmp_path / "1")
        assert "Missing plot" not in write_cell_report(changed).read_text("utf-8")
        assert mpl.rcParams["text.usetex"]
        assert mpl.rcParams["font.size"] == 90
    for name in PLOTS:
        pictures = [folder / "plots" / f"{name}.png" for folder in (plain, changed)]
        assert pictures[0].read_bytes() == pictures[1].read_bytes(), name


def test_only_the_failed_plot_is_missing_from_the_report(tmp_path: Path) -> None:
    folder = cell(tmp_path / "0")
    (folder / "plots/stages.svg").mkdir(parents=True)
    (tmp_path / "plots/by_cell.svg").mkdir(parents=True)
    text = write_cell_report(folder).read_text("utf-8")
    assert "> **Missing plot:** Where the time of a request goes: IsADirectoryError" in text
    assert text.count("![") == len(PLOTS) - 1
    sweep = write_sweep_report(tmp_path).read_text("utf-8")
    assert "> **Missing plot:** Throughput and p95 latency: IsADirectoryError" in sweep
    assert (tmp_path / "results.csv").stat().st_size > 0


def test_unreadable_matplotlib_settings_do_not_prevent_plots(tmp_path: Path) -> None:
    """It runs in a new process, because matplotlib reads its settings when it is first imported."""
    (tmp_path / "matplotlibrc").write_bytes(b"\xff\xfe")
    folder = cell(tmp_path / "0")
    code = (
        "import sys; from pathlib import Path; from crossbench.report.cell import write_cell_report"
        "; assert 'matplotlib' not in sys.modules; write_cell_report(Path(sys.argv[1]))"
    )
    environment = {**CODE, "MPLBACKEND": "nonsense"}
    command = [sys.executable, "-c", code, str(folder)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "Missing plot" not in (folder / "report.md").read_text("utf-8")


def test_help_works_without_matplotlib_and_without_a_reader(tmp_path: Path) -> None:
    """This is `--help | head -1`, with settings that matplotlib refuses."""
    (tmp_path / "matplotlibrc").write_bytes(b"\xff\xfe")
    unread, pipe = os.pipe()
    os.close(unread)
    done = subprocess.run(
        [sys.executable, "-m", "crossbench", "--help"],
        env={**CODE, "MPLBACKEND": "nonsense"},
        cwd=tmp_path,
        stdout=pipe,
        stderr=subprocess.PIPE,
    )
    os.close(pipe)
    assert (done.returncode, done.stderr) == (141, b"")


def test_the_console_ignores_a_closed_pipe_and_a_full_disk() -> None:
    unread, pipe = os.pipe()
    os.close(unread)
    with os.fdopen(pipe, "w") as closed, Path("/dev/full").open("w") as full:
        for stream in (closed, full):
            console = SteadyConsole(file=stream)
            console.print("a line")
            console.print("another one")


def test_an_unwritable_output_folder_gets_a_readable_message(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for more in ([], ["-m", "batch=8,16", "tracker=none"]):
        command = [sys.executable, "-m", "crossbench", *more, f"outputs_dir={tmp_path}/file/x"]
        done = subprocess.run(command, env=CODE, capture_output=True, text=True)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert f"{tmp_path}/file/x" in line
        assert "Not a directory" in line
        assert "outputs_dir=DIR" in line
