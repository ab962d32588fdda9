"""The tokenizers library alone, on whole pairs with all threads; takes crossbench overrides."""

from __future__ import annotations

import itertools
import sys
import time

from tokenizers import Tokenizer

from benchmarks.contestants.cell import open_cell
from benchmarks.contestants.protocol import answer_requests

PAIRS_PER_CALL = 128


def main(overrides: list[str]) -> None:
    cell = open_cell(overrides)
    tokenizer = Tokenizer.from_file(str(cell.model.path / "tokenizer.json"))
    tokenizer.no_padding()
    pairs = [(entry.query, text) for entry in cell.lists for text in entry.passages]
    endless = itertools.cycle(pairs)

    def measure(seconds: float) -> dict[str, float]:
        done, started_s = 0, time.perf_counter()
        while done == 0 or time.perf_counter() - started_s < seconds:
            tokenizer.encode_batch_fast(list(itertools.islice(endless, PAIRS_PER_CALL)))
            done += PAIRS_PER_CALL
        return {"pairs_per_s": done / (time.perf_counter() - started_s)}

    answer_requests(measure)


if __name__ == "__main__":
    main(sys.argv[1:])
