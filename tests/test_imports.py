"""Slow libraries are imported late: not for `--help`, and not to import the job of a cell."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ("matplotlib", "pandas", "scipy", "mlflow", "torch", "transformers")
OF_CLUSTERS = ("ray", "submitit", "joblib")
OF_HTTP = ("aiohttp", "prometheus_client")
HELP = """
import contextlib, io, runpy, sys
sys.argv = ["crossbench", "--help"]
with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.suppress(SystemExit):
    runpy.run_module("crossbench", run_name="__main__", alter_sys=True)
assert "batch" in text.getvalue()
"""


@pytest.mark.parametrize("code", [HELP, "import sys, crossbench.sweeps.job"], ids=["help", "job"])
def test_nothing_heavy_is_imported(code: str) -> None:
    program = f"{code}\nimport json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert not {*HEAVY, *OF_CLUSTERS} & {*json.loads(done.stdout)}


def test_a_cell_of_our_own_server_imports_no_http_client() -> None:
    """Only target=http and target.scrape need one, and a cell starts the sooner without."""
    program = "import json, sys, crossbench.runner.__main__; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert not {*OF_HTTP} & {*json.loads(done.stdout)}


def test_a_server_without_http_imports_no_web_server() -> None:
    code = "import json, sys, crossbench.runner.target_child"
    program = f"{code}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded = {*json.loads(done.stdout)}
    assert "crossbench.serving.server" in loaded
    assert not {"uvicorn", "httptools", "orjson", "prometheus_client"} & loaded


def test_ray_is_imported_only_to_serve_with_it() -> None:
    """Neither by a cell, nor by a server, nor with the modules that run in Ray's processes."""
    modules = (
        "crossbench.runner.__main__, crossbench.runner.target_child, crossbench.serve, "
        "crossbench.serving.on_ray.replica, crossbench.serving.on_ray.ingress"
    )
    program = f"import sys, {modules}; print('ray' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
