"""A backend that fails as its sequences demand, and a folder of config that serves it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import numpy as np

from crossbench.backends.noop import NoopBackend
from crossbench.types import Inference, TokenBatch


class Fault(IntEnum):
    """What happens to a batch that has a sequence of so many tokens."""

    RAISES = 41
    EXITS = 42
    INTERRUPTED = 43
    GENERATOR_EXIT = 44
    RETURNS_NONE = 45
    TWO_DIMENSIONS = 46
    TOO_FEW = 47
    DOUBLES = 48
    DIES = 49
    HANGS = 50
    STOPS = 51
    NEVER_FITS = 52

    @property
    def passage(self) -> str:
        """The passage that has this effect, with the query `q`."""
        return passage_of(self)


def passage_of(tokens: int) -> str:
    """Return a passage that makes a sequence of so many tokens with the query `q`."""
    return " ".join(["word"] * (tokens - 4))


RAISED = {
    Fault.RAISES: RuntimeError("the engine fell over"),
    Fault.EXITS: SystemExit(3),
    Fault.INTERRUPTED: KeyboardInterrupt(),
    Fault.GENERATOR_EXIT: GeneratorExit(),
    Fault.NEVER_FITS: MemoryError("an enormous array"),
}


@dataclass
class HangingBackend(NoopBackend):
    """Hangs in a method while `deployment.cache_dir` has a file of its name.

    Then it makes the file `NAME.reached`.
    """

    def load_model(self) -> None:
        self._hang_at("load_model")

    def warmup(self, lengths: Sequence[int]) -> None:
        self._hang_at("warmup")

    def infer(self, batch: TokenBatch) -> Inference:
        self._hang_at("infer")
        return super().infer(batch)

    def close(self) -> None:
        self._hang_at("close")

    def _hang_at(self, method: str) -> None:
        file = self.deployment.cache_dir / method
        while file.exists():
            file.with_suffix(".reached").touch()
            time.sleep(0.05)


@dataclass
class FaultyBackend(HangingBackend):
    """Scores a sequence with its number of tokens, as noop does, unless it has a Fault.

    `most` is the number of sequences that fit in memory.
    """

    most: int = 1000

    def infer(self, batch: TokenBatch) -> Inference:
        found = {Fault(length) for length in batch.lengths if length in list(Fault)}
        for fault, raised in RAISED.items():
            if fault in found:
                raise raised
        if len(batch) > self.most:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        if Fault.DIES in found:
            os.kill(os.getpid(), signal.SIGKILL)
        has_folder = self.deployment.cache_dir != Path()
        if has_folder and found & {Fault.STOPS, Fault.HANGS}:
            self.deployment.cache_dir.joinpath("infer.reached").touch()
        if Fault.STOPS in found:
            os.kill(os.getpid(), signal.SIGSTOP)
        if Fault.HANGS in found:
            time.sleep(1000)
        inference = super().infer(batch)
        values = inference.values
        if Fault.RETURNS_NONE in found:
            return None  # type: ignore[return-value]
        if Fault.TWO_DIMENSIONS in found:
            return Inference(values[:, None], inference.tokens_computed)
        if Fault.TOO_FEW in found:
            return Inference(values[:-1], inference.tokens_computed)
        if Fault.DOUBLES in found:
            return Inference(values.astype(np.float64), inference.tokens_computed)  # type: ignore[arg-type]
        return inference


CONFIG = """
_target_: tests.helpers.faulty.{kind}
name: faulty
service_us_per_pair: 0
service_kind: sleep
"""


def faulty_options(folder: Path, kind: type[HangingBackend] = FaultyBackend) -> list[str]:
    """Return the options of a command that uses this backend, with a config in `folder`."""
    (folder / "conf" / "backend").mkdir(parents=True)
    config = CONFIG.format(kind=kind.__name__)
    (folder / "conf" / "backend" / "faulty.yaml").write_text(config, "utf-8")
    return ["--config-dir", f"{folder}/conf", "backend=faulty", "allow_targets=[tests.]"]
