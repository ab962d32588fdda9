"""sentence-transformers' CrossEncoder.predict on the same pairs, 128 at a call.

Arguments: MODEL DATA BATCH_SIZE BACKEND DTYPE [FILE_NAME]. 128 is what 4 requests of 32 hold;
predict sorts them by length itself. FILE_NAME is the exported model that ONNX or OpenVINO load.
"""

from __future__ import annotations

import itertools
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.contestants.protocol import obey
from benchmarks.contestants.texts import read_pairs

PAIRS_PER_CALL = 128


def main(model: str, data: str, batch_size: int, backend: str, dtype: str, file: str) -> None:
    from sentence_transformers import CrossEncoder

    kwargs: dict[str, Any] = {"dtype": dtype} if backend == "torch" else {}
    if file:
        kwargs["file_name"] = file
    encoder = CrossEncoder(model, device="cpu", backend=backend, model_kwargs=kwargs)
    pairs = itertools.cycle(read_pairs(Path(data)))

    def measure(seconds: float) -> dict[str, float]:
        done, started_s = 0, time.perf_counter()
        while done == 0 or time.perf_counter() - started_s < seconds:
            chunk = list(itertools.islice(pairs, PAIRS_PER_CALL))
            encoder.predict(chunk, batch_size=batch_size, show_progress_bar=False)
            done += len(chunk)
        elapsed_s = time.perf_counter() - started_s
        return {"pairs_per_s": done / elapsed_s}

    obey(measure)


if __name__ == "__main__":
    model, data, batch_size, backend, dtype, *rest = sys.argv[1:]
    main(model, data, int(batch_size), backend, dtype, rest[0] if rest else "")
