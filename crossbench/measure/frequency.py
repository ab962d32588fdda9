"""The frequency of the CPU's cores and how often heat throttled them, where Linux tells."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from crossbench.system.facts import file_text

_CPUS = Path("/sys/devices/system/cpu")


class FrequencyRange:
    """The lowest and highest frequency of any core over all readings; None if there are none.

    `cpus` is the folder of the system that has a folder for each core.
    """

    def __init__(self, cpus: Path = _CPUS) -> None:
        self._frequencies = sorted(cpus.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))  # in kHz
        self._throttles = sorted(cpus.glob("cpu[0-9]*/thermal_throttle/core_throttle_count"))
        self._throttled_before = sum(_numbers(self._throttles))
        self.min_mhz: float | None = None
        self.max_mhz: float | None = None

    def read(self) -> None:
        """Read the current frequency of every core."""
        found = [khz / 1e3 for khz in _numbers(self._frequencies)]
        if found:
            self.min_mhz = min(found) if self.min_mhz is None else min(self.min_mhz, *found)
            self.max_mhz = max(found) if self.max_mhz is None else max(self.max_mhz, *found)

    def throttle_events(self) -> float | None:
        """Return how often a core was throttled since this object was created."""
        if not self._throttles:
            return None
        return float(sum(_numbers(self._throttles)) - self._throttled_before)


def _numbers(paths: Sequence[Path]) -> list[int]:
    texts = (file_text(path) for path in paths)
    return [int(text) for text in texts if text.isdigit()]
