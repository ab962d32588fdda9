"""The quality check of a cell: compares served scores of a fixed sample with reference scores.

The check runs after the measurement. First, the cell's server scores the sample with the same RPCs
as the measured requests. Then this server is closed, and the reference scores the pairs that are
not in the cache. The reference is transformers' padded forward pass in fp32 on the CPU. It runs
behind the same kind of server, so that tokenisation, truncation and activation are identical. Both
steps run in the cell process: its memory and CPU metrics are already recorded, and another process
would have to load the data again.

The check never uses calibration data: the scales of int8 come from a text that ships with
crossbench (backends/calibration.tsv) or that the user names, never from the data set.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import grpc

from crossbench.errors import CrossbenchError, NonFiniteValues
from crossbench.measure.catalogue import JUDGED_QUERIES
from crossbench.measure.ranking import Judgement, Verdict, judge
from crossbench.measure.ranking_metrics import (
    ScoredList,
    quality_metrics,
    query_qualities,
    without_change_interval,
)
from crossbench.quality.reference_scores import reference_scores
from crossbench.quality.sample import Check, NoCheck, QualityCheck, is_judged
from crossbench.quality.score_cache import ReferenceCache
from crossbench.quality.scoring import ScoringOptions, score_lists
from crossbench.result_facts import QualityFacts
from crossbench.serving import inference_pb2 as pb
from crossbench.serving.client import InferenceClient, error_message
from crossbench.serving.finite import NON_FINITE
from crossbench.serving.info import computes_scores
from crossbench.serving.server import Server
from crossbench.settings.cell_settings import CellSettings
from crossbench.types import Float32Array, Pipeline, QueryPassages, QueryQuality, ScoredPair
from crossbench.wording import counted, error_text

Announce = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ServedScores:
    """Scores that the cell's server gave for the first lists of the sample, each float32 (n,).

    `skip_reason` explains why nothing was checked, or is empty. `non_finite` is the server's error
    message if a score was NaN or infinite, which fails the cell. `chosen` is the number of lists
    in the sample. `judged_left_out`: see LoadedDataset.
    """

    check: str
    lists: tuple[QueryPassages, ...] = ()
    scores: tuple[Float32Array, ...] = ()
    chosen: int = 0
    seconds: float = 0.0
    is_reference: bool = False
    skip_reason: str = ""
    non_finite: str = ""
    judged_left_out: int = 0


@dataclass(frozen=True, slots=True)
class QualityResult:
    """The result of the check: the summary for result.json, the metrics and the raw data."""

    summary: QualityFacts
    metrics: dict[str, float] = field(default_factory=dict)
    pairs: list[ScoredPair] = field(default_factory=list)
    queries: list[QueryQuality] = field(default_factory=list)


def reason_not_checked(
    check: Check, pipeline: Pipeline, served: pb.ModelInfo, digest: str
) -> str | None:
    """Return the reason if this server's scores cannot be checked, None if they can."""
    if isinstance(check, NoCheck):
        return f"quality={check.name}"
    if pipeline is not Pipeline.FULL:
        return f"pipeline={pipeline.value} measures only one stage"
    if not computes_scores(served):
        return f"backend={served.backend} runs no model"
    if served.digest != digest:
        return f"the server's model {served.name} is not the model of this config"
    return None


async def score_sample(
    client: InferenceClient,
    check: QualityCheck,
    lists: Sequence[QueryPassages],
    info: pb.ServerInfo,
    settings: CellSettings,
    interrupted: asyncio.Event,
    announce: Announce,
) -> ServedScores:
    """Score the sample with the cell's server, in requests like the measured ones.

    Call this only if `reason_not_checked` returns None. If the server itself is the reference and
    there are no judgements, no metric can be computed, so nothing is scored.
    """
    reference = info.models[0].is_reference
    chosen = check.choose(lists)
    served = ServedScores(check.name, chosen=len(chosen), is_reference=reference)
    if reference and not any(map(is_judged, chosen)):
        return served
    announce("checking quality")
    options = ScoringOptions(
        users=settings.concurrency,
        batch=min(settings.batch, info.max_pairs),
        max_seconds=check.max_seconds,
        min_lists=check.min_queries,
        longest_s=max(check.max_seconds, check.longest_seconds),
        timeout_s=check.timeout_s,
    )
    started_s = time.perf_counter()
    try:
        scores = await score_lists(client, chosen, options, interrupted)
    except grpc.aio.AioRpcError as error:
        message = error_message(error)
        non_finite = message if error.code() is NON_FINITE else ""
        return replace(served, skip_reason=f"the server failed: {message}", non_finite=non_finite)
    seconds = time.perf_counter() - started_s
    if interrupted.is_set():
        return replace(served, skip_reason="interrupted")
    return replace(served, lists=chosen[: len(scores)], scores=tuple(scores), seconds=seconds)


def compare(
    served: ServedScores,
    check: Check,
    cache: ReferenceCache,
    make_server: Callable[[], Server],
    seed: int,
    announce: Announce,
) -> QualityResult:
    """Compare the served scores with the reference, after the cell's server is closed.

    `make_server` creates the reference's server if scores are missing in the cache. If the
    reference fails, the result contains the reason, and the cell does not fail.
    """
    if served.is_reference or served.skip_reason or not isinstance(check, QualityCheck):
        return evaluate_scores(served, None, seed)
    announce("computing the reference")
    started_s = time.perf_counter()
    try:
        reference = asyncio.run(reference_scores(make_server, cache, check, served.lists))
    except grpc.aio.AioRpcError as error:
        return unchecked(f"the reference failed: {error_message(error)}", served.check)
    except Exception as error:
        if not isinstance(error, CrossbenchError):
            traceback.print_exc()
        return unchecked(f"the reference failed: {error_text(error)}", served.check)
    return evaluate_scores(served, reference, seed, time.perf_counter() - started_s)


def evaluate_scores(
    served: ServedScores,
    reference: Sequence[Float32Array] | None,
    seed: int,
    reference_s: float = 0.0,
) -> QualityResult:
    """Compute metrics and verdict. `reference` has scores of the first lists, or is None."""
    if served.skip_reason:
        return unchecked(served.skip_reason, served.check)
    count = len(served.scores) if reference is None else len(reference)
    lists = [
        ScoredList(
            entry.query_id,
            entry.passage_ids,
            scores,
            None if reference is None else reference[index],
            entry.relevance,
            entry.other_grades,
        )
        for index, (entry, scores) in enumerate(
            zip(served.lists[:count], served.scores[:count], strict=True)
        )
    ]
    try:
        queries = query_qualities(lists)
    except NonFiniteValues as error:
        return unchecked(str(error), served.check)
    metrics = quality_metrics(queries, seed)
    if served.is_reference:
        found = Judgement(Verdict.REFERENCE, "the cell is the reference itself")
    elif not lists:
        found = Judgement(Verdict.UNSURE, "the reference scored no query within its time limit")
    else:
        found = judge(queries, metrics)
        if found.same_scores:
            metrics = without_change_interval(metrics)
    left_out = ""
    if served.judged_left_out and JUDGED_QUERIES.name in metrics:
        queries_left_out = counted(served.judged_left_out, "judged query")
        left_out = f"; {queries_left_out} without text or candidates left out"
    summary: QualityFacts = {
        "check": served.check,
        "verdict": found.verdict.value,
        "reason": found.reason + left_out,
        "left_out": left_out,
        "same_scores": found.same_scores,
        "queries_chosen": served.chosen,
        "queries_scored": len(served.scores),
        "queries_compared": 0 if reference is None else count,
        "passages_a_query": max((len(item.scores) for item in lists), default=0),
        "served_s": served.seconds,
        "reference_s": reference_s,
    }
    return QualityResult(summary, metrics, list(_pairs(lists)), queries)


def unchecked(reason: str, check: str, checked_in: str = "") -> QualityResult:
    """Return the result of a check that was skipped or has failed.

    `checked_in` is the folder of the repeat that was checked instead, or empty.
    """
    summary: QualityFacts = {
        "check": check,
        "verdict": Verdict.UNCHECKED.value,
        "reason": reason,
    }
    if checked_in:
        summary["checked_in"] = checked_in
    return QualityResult(summary)


def _pairs(lists: Iterable[ScoredList]) -> Iterator[ScoredPair]:
    for item in lists:
        for place, passage_id in enumerate(item.passage_ids):
            yield ScoredPair(
                query_id=item.query_id,
                passage_id=passage_id,
                score=float(item.scores[place]),
                reference_score=None if item.reference is None else float(item.reference[place]),
                relevance=None if item.relevance is None else item.relevance[place],
            )
