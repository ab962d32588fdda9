"""The name and the features of the CPU. Features have the names that Linux uses."""

from __future__ import annotations

import platform
import re
import sys
from functools import cache

from crossbench.system.facts import command_output, file_text

_CPUINFO = "/proc/cpuinfo"
_APPLE_FLAGS = {  # sysctl hw.optional.… of macOS
    "neon": "neon", "arm.FEAT_DotProd": "asimddp", "arm.FEAT_FP16": "asimdhp",
    "arm.FEAT_BF16": "bf16", "arm.FEAT_I8MM": "i8mm", "arm.FEAT_SME": "sme",
    "avx2_0": "avx2", "avx512f": "avx512f",
}  # fmt: skip


def cpu_name() -> str:
    if sys.platform == "darwin":
        return command_output("sysctl", "-n", "machdep.cpu.brand_string") or platform.machine()
    # ARM kernels report no model name; lscpu identifies the cores by their part numbers
    pattern = re.compile(r"^model name\s*:\s*(.+)$", re.MULTILINE | re.IGNORECASE)
    for text in (file_text(_CPUINFO), command_output("lscpu")):
        if found := pattern.search(text):
            return found[1].strip()
    return platform.processor() or platform.machine()


@cache
def cpu_flags() -> frozenset[str]:
    """Return the CPU's features, or an empty set if they cannot be read."""
    if sys.platform == "darwin":
        text = command_output("sysctl", "hw.optional")
        known = dict(re.findall(r"hw\.optional\.(\S+): (\d+)", text))
        return frozenset(flag for key, flag in _APPLE_FLAGS.items() if known.get(key) == "1")
    found = re.search(
        r"^(?:flags|features)\s*:\s*(.+)$", file_text(_CPUINFO), re.MULTILINE | re.IGNORECASE
    )
    return frozenset(found[1].split()) if found else frozenset()


def is_intel() -> bool:
    """Return whether the CPU is from Intel. On macOS, only CPUs with AVX are."""
    return sys.platform == "darwin" or "GenuineIntel" in file_text(_CPUINFO)
