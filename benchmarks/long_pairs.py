"""`python -m benchmarks.long_pairs`: CPU time of tokenising pairs whose texts are all too long.

The special tokens leave an odd number of tokens with a maximum of 512, and an even one with 511.
"""

from __future__ import annotations

import random
import string
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from crossbench.models.sources import SeededModel
from crossbench.models.tokenizer import PairTokenizer

KIB = 1024
MAXIMUMS = (512, 511)
# Bytes of the query, passages, bytes of each
CASES = (
    (255 * KIB, 15, 255 * KIB),
    (255 * KIB, 15, 8 * KIB),
    (8 * KIB, 15, 255 * KIB),
    (8 * KIB, 64, 8 * KIB),
    (80, 64, 700),
)


def words(rng: random.Random, size: int) -> str:
    """Return a text of about `size` bytes whose words are new."""
    found: list[str] = []
    while size > 0:
        found.append("".join(rng.choices(string.ascii_lowercase, k=rng.randint(4, 9))))
        size -= len(found[-1]) + 1
    return " ".join(found)


def main() -> None:
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as cache:
        source = SeededModel("tiny", 0, 1, 32, 2, 64, 30_522, 512, None)
        model = source.fetch(Path(cache))
        for query_bytes, passages, passage_bytes in CASES:
            query = words(rng, query_bytes)
            texts = [words(rng, passage_bytes) for _ in range(passages)]
            times = []
            for maximum in MAXIMUMS:
                tokenizer = PairTokenizer(replace(model, max_length=maximum))
                before = time.process_time()
                tokenizer.encode_query(query, texts)
                times.append(f"{maximum}: {time.process_time() - before:.3f} s")
            sizes = f"query of {query_bytes:,} bytes, {passages} passages of {passage_bytes:,}"
            print(f"{sizes}: {', '.join(times)}", flush=True)


if __name__ == "__main__":
    main()
