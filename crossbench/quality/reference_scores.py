"""The reference's scores: from the cache, or computed by its own server and kept."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from crossbench.quality.sample import QualityCheck
from crossbench.quality.score_cache import ReferenceCache
from crossbench.quality.scoring import ScoringOptions, score_lists
from crossbench.serving.client import InferenceClient
from crossbench.serving.server import Server
from crossbench.types import Float32Array, QueryPassages

log = logging.getLogger(__name__)

_REFERENCE_BATCH = 32


async def reference_scores(
    make_server: Callable[[], Server],
    cache: ReferenceCache,
    check: QualityCheck,
    lists: Sequence[QueryPassages],
) -> list[Float32Array]:
    """The reference's scores of the first lists: from the cache, the others computed and kept.

    A cache that cannot be written costs a word in the log, and the time of the next cell.

    Raises:
        ModelError: transformers cannot load the model.
        grpc.aio.AioRpcError: the reference's server failed, or its scores are not finite.
    """
    known = [cache.load(entry) for entry in lists]
    missing = [index for index, scores in enumerate(known) if scores is None]
    unkept: list[OSError] = []

    def keep(number: int, scores: Float32Array) -> None:
        known[missing[number]] = scores
        try:
            cache.save(lists[missing[number]], scores)
        except OSError as error:
            unkept.append(error)

    if missing:
        options = ScoringOptions(
            users=1,
            batch=_REFERENCE_BATCH,
            max_seconds=check.reference_max_seconds,
            timeout_s=check.timeout_s,
        )
        server = await asyncio.to_thread(make_server)
        try:
            async with InferenceClient(await server.start()) as client:
                await score_lists(
                    client,
                    [lists[index] for index in missing],
                    options,
                    asyncio.Event(),
                    keep,
                )
        finally:
            await server.stop()
    if unkept:
        log.warning("the reference's scores cannot be kept: %s", unkept[0])
    first = next((index for index, scores in enumerate(known) if scores is None), len(known))
    return [scores for scores in known[:first] if scores is not None]
