"""sentence-transformers' CrossEncoder.predict on the same pairs, with many pairs per call.

Arguments: MODEL DATA DEVICE PAIRS_PER_CALL BATCH_SIZE BACKEND DTYPE [FILE_NAME]. predict sorts the
pairs of a call by length. FILE_NAME is the exported model for ONNX or OpenVINO.
"""

from __future__ import annotations

import itertools
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.contestants.protocol import answer_requests
from benchmarks.contestants.texts import read_pairs


def main(
    model: str,
    data: str,
    device: str,
    pairs_per_call: int,
    batch_size: int,
    backend: str,
    dtype: str,
    file: str,
) -> None:
    from sentence_transformers import CrossEncoder

    kwargs: dict[str, Any] = {"dtype": dtype} if backend == "torch" else {}
    if file:
        kwargs["file_name"] = file
    encoder = CrossEncoder(model, device=device, backend=backend, model_kwargs=kwargs)
    pairs = itertools.cycle(read_pairs(Path(data)))

    def measure(seconds: float) -> dict[str, float]:
        done, started_s = 0, time.perf_counter()
        while done == 0 or time.perf_counter() - started_s < seconds:
            chunk = list(itertools.islice(pairs, pairs_per_call))
            encoder.predict(chunk, batch_size=batch_size, show_progress_bar=False)
            done += len(chunk)
        elapsed_s = time.perf_counter() - started_s
        return {"pairs_per_s": done / elapsed_s}

    answer_requests(measure)


if __name__ == "__main__":
    model, data, device, pairs_per_call, batch_size, backend, dtype, *rest = sys.argv[1:]
    main(
        *(model, data, device, int(pairs_per_call), int(batch_size), backend, dtype),
        rest[0] if rest else "",
    )
