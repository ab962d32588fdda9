"""What the process takes and where it runs: memory, CPU, machine. Imports no heavy library."""

from __future__ import annotations

import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import threading
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

_MB = 1e6
_PACKAGE = Path(__file__).resolve().parents[1]
_SAMPLING_S = 0.05
_COMMAND_TIMEOUT_S = 5.0

# Instruction sets that decide how fast a transformer runs on a CPU (names of /proc/cpuinfo).
_FLAGS = (
    "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16",
    "amx_tile", "amx_bf16", "amx_int8", "neon", "asimd", "asimddp", "asimdhp", "bf16", "i8mm",
    "sve", "sve2",
)  # fmt: skip
_APPLE_FLAGS = {  # sysctl hw.optional.… of macOS
    "neon": "neon", "arm.FEAT_DotProd": "asimddp", "arm.FEAT_FP16": "asimdhp",
    "arm.FEAT_BF16": "bf16", "arm.FEAT_I8MM": "i8mm", "arm.FEAT_SME": "sme",
    "avx2_0": "avx2", "avx512f": "avx512f",
}  # fmt: skip
_LIBRARIES = (
    "crossbench", "torch", "transformers", "tokenizers", "safetensors", "sentence-transformers",
    "numpy", "grpcio", "protobuf", "hydra-core", "omegaconf", "mlflow", "openvino",
    "onnxruntime", "mlx", "datasets", "pyarrow",
)  # fmt: skip


def rss_mb() -> float:
    """Resident set of this process in MB (1e6 bytes)."""
    return float(psutil.Process().memory_info().rss) / _MB


def rss_peak_mb() -> float:
    """Largest resident set of this process in MB since it began, or since PeakRss reset it."""
    high_water = _vm_hwm_mb()
    if high_water is not None:
        return high_water
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / _MB if sys.platform == "darwin" else peak * 1024 / _MB  # bytes there, KiB here


class PeakRss:
    """Largest resident set between start() and now; the process's peak before does not count.

    Linux lets a process reset its own high-water mark (proc(5): 5 into clear_refs). Where it
    cannot, a thread samples every 50 ms and may miss a shorter peak.
    """

    def __init__(self) -> None:
        self._sampler: threading.Thread | None = None
        self._stop = threading.Event()
        self._sampled_mb = 0.0

    def start(self) -> None:
        self._sampled_mb = rss_mb()
        if _reset_high_water():
            return
        self._stop.clear()
        self._sampler = threading.Thread(target=self._sample, name="peak-rss", daemon=True)
        self._sampler.start()

    def peak_mb(self) -> float:
        """Peak in MB since start()."""
        now = rss_mb() if self._sampler is not None else rss_peak_mb()
        self._sampled_mb = max(self._sampled_mb, now)
        return self._sampled_mb

    def stop(self) -> None:
        """End the sampling thread, where there is one."""
        self._stop.set()
        if self._sampler is not None:
            self._sampler.join()

    def _sample(self) -> None:
        while not self._stop.wait(_SAMPLING_S):
            self._sampled_mb = max(self._sampled_mb, rss_mb())


class CpuMeter:
    """Cores that this process kept busy (all its threads, no child processes) since start()."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        self._cpu_s, self._wall_s = time.process_time(), time.perf_counter()

    def cores_used(self) -> float:
        """CPU seconds per second of wall time."""
        wall_s = time.perf_counter() - self._wall_s
        return (time.process_time() - self._cpu_s) / wall_s if wall_s > 0 else 0.0


def usable_cores() -> int:
    """Cores that this process may use: its affinity, and its cgroup's quota rounded down."""
    if sys.platform == "linux":
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quotas = [cores]
    for folder in _cgroups("cpu"):
        words = _read(folder / "cpu.max").split()  # version 2: "200000 100000" or "max 100000"
        quota = words or [_read(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
        if len(quota) == 2 and quota[0].isdigit() and quota[1].isdigit():
            quotas.append(int(quota[0]) // int(quota[1]))
    return max(1, min(quotas))


def memory_total_mb() -> float:
    """Memory in MB that this process may use: the machine's, or its cgroup's limit."""
    limits = [int(psutil.virtual_memory().total)]
    for folder in _cgroups("memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            text = _read(folder / name)
            limits += [int(text)] if text.isdigit() else []
    return min(limits) / _MB


def environment() -> dict[str, Any]:
    """Machine, system, libraries and source: what a reader needs to place a number.

    Keys: host, os, python, machine, cpu, cpu_flags, cores_physical, cores_logical, cores_usable,
    memory_total_mb, gpus (names), versions (by distribution), git_commit and git_dirty (None where
    the package does not run from a checkout). Imports nothing heavy.
    """
    commit, dirty = _git()
    return {
        "host": platform.node(),
        "os": f"macOS {platform.mac_ver()[0]}" if sys.platform == "darwin" else platform.platform(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpu": _cpu_name(),
        "cpu_flags": _cpu_flags(),
        "cores_physical": psutil.cpu_count(logical=False),
        "cores_logical": os.cpu_count(),
        "cores_usable": usable_cores(),
        "memory_total_mb": round(memory_total_mb()),
        "gpus": _gpus(),
        "versions": _versions(),
        "git_commit": commit,
        "git_dirty": dirty,
    }


def _vm_hwm_mb() -> float | None:
    found = re.search(r"^VmHWM:\s+(\d+) kB", _read(Path("/proc/self/status")), re.MULTILINE)
    return int(found[1]) * 1024 / _MB if found else None


def _reset_high_water() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5", "ascii")
    except OSError:
        return False
    return _vm_hwm_mb() is not None


def _cgroups(controller: str) -> list[Path]:
    """Folders of this process's cgroup and its ancestors that exist here (versions 1 and 2)."""
    folders = []
    for line in _read(Path("/proc/self/cgroup")).splitlines():
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


def _cpu_name() -> str:
    if sys.platform == "darwin":
        return _run("sysctl", "-n", "machdep.cpu.brand_string") or platform.machine()
    # ARM kernels give no model name: lscpu knows the cores by their part numbers.
    pattern = re.compile(r"^model name\s*:\s*(.+)$", re.MULTILINE | re.IGNORECASE)
    for text in (_read(Path("/proc/cpuinfo")), _run("lscpu")):
        if found := pattern.search(text):
            return found[1].strip()
    return platform.processor() or platform.machine()


def _cpu_flags() -> list[str]:
    if sys.platform == "darwin":
        known = dict(re.findall(r"hw\.optional\.(\S+): (\d+)", _run("sysctl", "hw.optional")))
        return sorted({flag for key, flag in _APPLE_FLAGS.items() if known.get(key) == "1"})
    text = _read(Path("/proc/cpuinfo"))
    found = re.search(r"^(?:flags|features)\s*:\s*(.+)$", text, re.MULTILINE | re.IGNORECASE)
    present = set(found[1].split()) if found else set()
    return [flag for flag in _FLAGS if flag in present]


def _gpus() -> list[str]:
    torch = sys.modules.get("torch")
    # Asking torch for a name would create a CUDA context where nobody wanted one.
    if torch is not None and torch.cuda.is_initialized():
        return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    if sys.platform == "darwin":
        text = _run("system_profiler", "-detailLevel", "mini", "SPDisplaysDataType")
        return re.findall(r"Chipset Model: (.+)", text)
    return _run("nvidia-smi", "--query-gpu=name", "--format=csv,noheader").splitlines()


def _versions() -> dict[str, str]:
    versions = {}
    for name in _LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _git() -> tuple[str | None, bool | None]:
    """Commit of the checkout and whether the package or its configuration differs from it."""
    # A package inside someone else's repository (its .venv) is not tracked there.
    if not _run("git", "-C", str(_PACKAGE), "ls-files", "__init__.py"):
        return None, None
    commit = _run("git", "-C", str(_PACKAGE), "rev-parse", "HEAD")
    changes = _run("git", "-C", str(_PACKAGE), "status", "--porcelain", "--", ".", "../conf")
    return (commit, bool(changes)) if commit else (None, None)


def _run(*command: str) -> str:
    """What a command prints; empty where it is not here, fails or takes too long."""
    if shutil.which(command[0]) is None:
        return ""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_COMMAND_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", errors="replace").strip()
    except OSError:
        return ""
