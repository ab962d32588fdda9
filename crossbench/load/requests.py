"""Cut a data set's lists into requests of `batch` pairs or texts, in the lists' order, for ever."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, cycle, islice

from crossbench.serving import inference_pb2 as pb
from crossbench.serving.client import Message, pairs_message
from crossbench.types import Pair, QueryPassages


def fill_requests(lists: Sequence[QueryPassages], batch: int) -> Iterator[Message]:
    """Requests of exactly `batch` pairs; after the last list comes the first again.

    A request is a Score where one query has enough passages left, and ScorePairs where it spans
    queries.
    """
    pairs: list[Pair] = []
    while True:
        for candidates in lists:
            start, total = 0, len(candidates.passages)
            while start < total:
                if not pairs and total - start >= batch:
                    passages = candidates.passages[start : start + batch]
                    yield pb.ScoreRequest(query=candidates.query, passages=passages)
                    start += batch
                    continue
                end = min(total, start + batch - len(pairs))
                pairs += [Pair(candidates.query, text) for text in candidates.passages[start:end]]
                start = end
                if len(pairs) == batch:
                    yield pairs_message(pairs)
                    pairs = []


def fill_texts(lists: Sequence[QueryPassages], batch: int) -> Iterator[Message]:
    """Embed requests of exactly `batch` passages; after the last list comes the first again."""
    texts = cycle(chain.from_iterable(entry.passages for entry in lists))
    while True:
        yield pb.EmbedRequest(texts=islice(texts, batch))


def first_pairs(lists: Sequence[QueryPassages], count: int) -> Iterator[tuple[str, str]]:
    """The (query, passage) of the first `count` pairs that requests hold, each list's once."""
    return islice(((entry.query, text) for entry in lists for text in entry.passages), count)
