"""Probes of the machine and of the resources of this process. Imports no heavy library."""

from __future__ import annotations

import os
import platform
import re
import sys
import time
from importlib import metadata
from pathlib import Path

import psutil

from crossbench.measure.cpu import cpu_flags, cpu_name
from crossbench.result_facts import EnvironmentFacts
from crossbench.system.facts import command_output, file_text

_MB = 1e6
_PACKAGE = Path(__file__).resolve().parents[1]

# Instruction sets that affect the speed of a transformer on a CPU (names of /proc/cpuinfo)
_FLAGS = (
    "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16",
    "amx_tile", "amx_bf16", "amx_int8", "neon", "asimd", "asimddp", "asimdhp", "bf16", "i8mm",
    "sve", "sve2", "sme",
)  # fmt: skip
_LIBRARIES = (
    "crossbench", "torch", "transformers", "tokenizers", "safetensors", "sentence-transformers",
    "numpy", "grpcio", "protobuf", "hydra-core", "omegaconf", "mlflow", "openvino",
    "onnxruntime", "mlx", "datasets", "pyarrow",
)  # fmt: skip


class CpuMeter:
    """Measures the CPU cores used by this process since start(), without child processes."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        self._cpu_s, self._wall_s = time.process_time(), time.perf_counter()

    def cores_used(self) -> float:
        """Return CPU seconds per second of wall time."""
        wall_s = time.perf_counter() - self._wall_s
        return (time.process_time() - self._cpu_s) / wall_s if wall_s > 0 else 0.0


def usable_cores() -> int:
    """Return the number of cores that this process may use.

    This is the minimum of its CPU affinity and its cgroup's quota, rounded down.
    """
    if sys.platform == "linux":
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quotas = [cores]
    for folder in _cgroups("cpu"):
        # cgroup version 2: "200000 100000" or "max 100000"; version 1: two files
        quota = file_text(folder / "cpu.max").split() or [
            file_text(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period")
        ]
        if len(quota) == 2 and quota[0].isdigit() and quota[1].isdigit():
            quotas.append(int(quota[0]) // int(quota[1]))
    return max(1, min(quotas))


def memory_total_mb() -> float:
    """Return the memory in MB that this process may use: the machine's or its cgroup's limit."""
    limits = [int(psutil.virtual_memory().total)]
    for folder in _cgroups("memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            text = file_text(folder / name)
            limits += [int(text)] if text.isdigit() else []
    return min(limits) / _MB


def environment() -> EnvironmentFacts:
    """Describe the machine, operating system, libraries and source code."""
    commit, dirty = _git()
    return {
        "host": platform.node(),
        "os": f"macOS {platform.mac_ver()[0]}" if sys.platform == "darwin" else platform.platform(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpu": cpu_name(),
        "cpu_flags": [flag for flag in _FLAGS if flag in cpu_flags()],
        "cores_physical": psutil.cpu_count(logical=False),
        "cores_logical": os.cpu_count(),
        "cores_usable": usable_cores(),
        "memory_total_mb": round(memory_total_mb()),
        "gpus": _gpus(),
        "versions": _versions(),
        "git_commit": commit,
        "git_dirty": dirty,
    }


def _cgroups(controller: str) -> list[Path]:
    """Return the folders of this process's cgroup and its ancestors (versions 1 and 2)."""
    folders = []
    for line in file_text(Path("/proc/self/cgroup")).splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            root = Path("/sys/fs/cgroup")
        elif controller in controllers.split(","):
            root = Path("/sys/fs/cgroup", controller)
        else:
            continue
        own = root / path.strip("/")
        folders += [own, *(parent for parent in own.parents if parent.is_relative_to(root))]
    return folders


def _gpus() -> list[str]:
    torch = sys.modules.get("torch")
    # Ask torch only if it already has a CUDA context, since this would create one
    if torch is not None and torch.cuda.is_initialized():
        return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    if sys.platform == "darwin":
        text = command_output("system_profiler", "-detailLevel", "mini", "SPDisplaysDataType")
        return re.findall(r"Chipset Model: (.+)", text)
    return command_output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader").splitlines()


def _versions() -> dict[str, str]:
    versions = {}
    for name in _LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _git() -> tuple[str | None, bool | None]:
    """Return the checkout's commit, and whether the package or its configuration is modified."""
    # If the package is installed inside another repository (a .venv), git does not track it
    if not command_output("git", "-C", str(_PACKAGE), "ls-files", "__init__.py"):
        return None, None
    commit = command_output("git", "-C", str(_PACKAGE), "rev-parse", "HEAD")
    changes = command_output(
        "git", "-C", str(_PACKAGE), "status", "--porcelain", "--", ".", "../conf"
    )
    return (commit, bool(changes)) if commit else (None, None)
