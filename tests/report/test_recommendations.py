"""Recommendations follow from the measurements, and say so if there are too few of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import pytest

from crossbench.report.advice.advice import Recommendation
from crossbench.report.advice.recommendations import recommend, recommendations
from crossbench.report.knee import find_knee
from crossbench.results import Status
from tests.helpers.reports import CHANGES, KEEPS, run


def topic(found: Sequence[Recommendation], start: str) -> Recommendation:
    (item,) = (item for item in found if item.topic.startswith(start))
    return item


def text(item: Recommendation) -> str:
    return " ".join([item.advice or "", *item.evidence, *item.limits])


def test_best_under_the_bound() -> None:
    runs = [run(100, 50, batch=8), run(200, 90, batch=32), run(300, 400, batch=96)]
    free = topic(recommend(runs, None), "Best throughput")
    assert free.advice is not None
    assert free.advice.startswith("batch=96 (")
    assert "batch=96 is the largest value tried" in text(free)
    assert "No latency bound was given" in text(free)
    bound = topic(recommend(runs, 100), "Best throughput with p95 up to 100 ms")
    assert bound.advice is not None
    assert bound.advice.startswith("batch=32 (")
    assert "2.0" in bound.evidence[0]  # times the next, batch=8
    assert "Of the cells over the bound (1), the fastest is batch=96" in text(bound)
    tight = topic(recommend(runs, 20), "Best throughput")
    assert tight.advice is None
    assert "the closest is batch=8" in text(tight)


def test_latency_bound_comes_from_the_cells_config() -> None:
    runs = [run(100, 50, batch=8, bound_ms=60), run(300, 400, batch=96, bound_ms=60)]
    assert "**Best throughput with p95 up to 60.0 ms:** batch=8 " in recommendations(runs)


def test_knee_by_hand() -> None:
    found = find_knee([(0, 0), (1, 8), (5, 9), (10, 10)])
    assert found is not None
    assert (found.index, found.height) == (1, pytest.approx(0.7))
    assert found.lead == pytest.approx(0.3)
    assert find_knee([(0, 0), (5, 5.2), (10, 10)]) is None
    assert find_knee([(0, 0), (10, 10)]) is None


def test_knee_of_a_sweep() -> None:
    sizes = {8: (100, 80), 32: (400, 120), 64: (420, 300), 128: (440, 500)}
    runs = [run(rate, p95, batch=batch) for batch, (rate, p95) in sizes.items()]
    found = topic(recommend(runs, None), "Knee")
    assert found.advice is not None
    assert found.advice.startswith("batch=32 (")
    assert "4.00×" in text(found)  # 400 over 100
    assert "1.10×" in text(found)  # 440 over 400
    straight = [run(100 * k, 100 * k, batch=k) for k in (1, 2, 3, 4)]
    none = topic(recommend(straight, None), "Knee")
    assert none.advice is None
    assert "in proportion to p95" in text(none)


def test_which_backend_is_faster() -> None:
    runs = [
        run(rate * size, backend=name, batch=batch)
        for name, rate in (("slow", 100), ("quick", 250), ("same", 101))
        for batch, size in ((32, 1.0), (96, 1.2))
    ]
    # One run each: only large differences are told, however little the windows of a run vary
    found = topic(recommend(runs, None), "Which backend")
    assert found.advice == "quick > same ? slow."
    assert "faster in 2 of 2 comparisons" in text(found)
    assert "Each cell was measured once: the intervals assume the spread" in text(found)
    # Repeats that differ by 10 %, block by block: the blocks cancel out
    again = [
        run(rate * (1 + 0.1 * (repeat - 2)), backend=name, repeat=repeat)
        for name, rate in (("slow", 100), ("quick", 250), ("same", 101))
        for repeat in (1, 2, 3)
    ]
    found = topic(recommend(again, None), "Which backend")
    assert found.advice == "quick > same = slow."
    assert "of these configurations, from up to 3 repeats" in text(found)


def test_cells_that_cannot_be_told_apart_are_recommended_together() -> None:
    runs = [run(100, backend="a", n=2), run(110, backend="b", n=2)]
    found = recommend(runs, None)
    assert topic(found, "Which backend").advice == "b ? a."
    assert "Its p95 is unreliable: it is based on 2 requests" in text(topic(found, "Best"))
    best = topic(found, "Best").advice
    assert re.match(r"b \(.*\) or a \(.*\): which one is best cannot be told\.", str(best))


@pytest.mark.parametrize(
    ("quality", "advice", "best"),
    [(KEEPS, "Faster, and it keeps the ranking: int8", "int8"),
     (CHANGES, "the ranking changes: int8", "fp32"),
     ({}, "No measured lower precision", "fp32")],
)  # fmt: skip
def test_a_lower_precision(quality: Mapping[str, float], advice: str, best: str) -> None:
    memory = {"memory/model_mb": 90.0}
    runs = [run(100, quant="fp32", **memory), run(160, quant="int8", **{"memory/model_mb": 23.0},
            **quality), run(1, quant="int4", status=Status.UNSUPPORTED)]  # fmt: skip
    found = recommend(runs, None)
    precision = topic(found, "Gain and cost of lower precision")
    assert advice in str(precision.advice)
    assert "1.60×" in text(precision)
    assert "0.26× the weights" in text(precision)
    assert "int4: unsupported" in text(precision)
    chosen = topic(found, "Best throughput")
    if best == "fp32":
        assert chosen.advice is None  # int8 is excluded, so only one cell is left
        assert "int8" in text(chosen)
    else:
        assert str(chosen.advice).startswith("int8")
    if quality is KEEPS:
        assert "nDCG@10 -0.2 %, 95 % interval -0.6 % to +0.1 %; Kendall's tau 0.970" in text(
            precision
        )


def test_a_cell_that_changes_the_ranking_is_never_recommended() -> None:
    runs = [
        run(100, batch=32),
        run(110, batch=96),
        run(300, quant="int8", batch=32, **CHANGES),
        run(310, quant="int8", batch=96),
    ]
    found = recommend(runs, None)
    assert str(topic(found, "Best").advice).startswith("fp32 batch=96")
    assert "int8 batch=32 (changes the ranking: nDCG@10 -8.0 %" in text(topic(found, "Best"))
    assert "int8 batch=96 (ranking not verified)" in text(topic(found, "Best"))
    for item in found:
        if not item.topic.startswith("Gain and cost"):
            assert "int8" not in str(item.advice)


def test_useful_concurrency() -> None:
    rates = {1: 100, 2: 180, 4: 240, 8: 242, 16: 243}
    runs = [run(rate, concurrency=c) for c, rate in rates.items()]
    found = topic(recommend(runs, None), "Useful concurrency")
    assert str(found.advice).startswith(
        "at least 2, but it cannot be told whether 4 is faster. At 4, throughput is 1.33×"
    )
    repeated = [run(rate * (1 + jitter), concurrency=c, repeat=repeat)
                for c, rate in rates.items()
                for repeat, jitter in enumerate((0.0, 0.01, -0.005, 0.004), 1)]  # fmt: skip
    found = topic(recommend(repeated, None), "Useful concurrency")
    assert str(found.advice).startswith("up to 4. At 16, throughput is 1.01×")
    growing = [run(100 * c, concurrency=c) for c in (1, 2, 4)]
    assert str(topic(recommend(growing, None), "Useful concurrency").advice).startswith(
        "at least 4, the highest value measured. Throughput is 2.00×"
    )
    alone = topic(recommend([run(100), run(200, batch=96)], None), "Useful concurrency")
    assert alone.advice is None


def test_bottlenecks() -> None:
    runs = [
        run(100, backend="padded", **{"batching/padding_waste": 0.34}),
        run(140, backend="packed", **{"batching/padding_waste": 0.0}),
    ]
    found = topic(recommend(runs, None), "Bottlenecks")
    assert found.advice == "Padding."
    assert "34 % of the computed tokens are padding (padded)" in text(found)
    assert re.search(
        r"With backend=packed it is 0 %, at 1\.40× \([\d.]+ to [\d.]+\) the throughput", text(found)
    )
    assert "tokenisation: up to 2 %" in text(found)
    with_noop = topic(recommend([*runs, run(200, backend="noop")], None), "Bottlenecks")
    assert with_noop.advice == "Padding, the harness."
    assert "70 % of the throughput of backend=noop" in text(with_noop)
    slow_tokenizer = run(100, **{"stage/tokenize_mean_ms": 80.0, "stage/infer_mean_ms": 100.0})
    assert topic(recommend([slow_tokenizer], None), "Bottlenecks").advice == "Tokenisation."


def test_noop_and_single_stages_are_never_recommended() -> None:
    runs = [run(9000, backend="noop"), run(800, pipeline="tokenize"), run(100), run(90, batch=8)]
    found = topic(recommend(runs, None), "Best")
    assert "noop" not in str(found.advice)
    assert "tokenize" not in str(found.advice)
    assert "100" in str(found.advice)
    assert "runs no model" in text(found)
    assert "measures only tokenize" in text(found)


def test_recommendations_for_one_zero_and_many_cells() -> None:
    assert recommendations([]) == ""
    one = recommendations([run(100)])
    assert "Not answered by these measurements" in one
    assert "- Best throughput: only packed fp32 batch=32 concurrency=1" in one
    none = recommendations([run(1, status=Status.FAILED), run(1, batch=8, status=Status.FAILED)])
    assert "no cell qualifies. Excluded: batch=32 (not measured: failed); batch=8" in none
    assert "**" not in none
    many = [
        run(50 * 2**i * (1 - 0.5 ** (c + 1)) * batch / 8, backend=f"engine-{i}", batch=batch,
            concurrency=c + 1, n=2000)
        for i in range(4) for batch in (8, 32) for c in range(3)
    ]  # fmt: skip
    text_of_many = recommendations(many)
    assert "engine-3 batch=32 concurrency=3" in text_of_many
    assert "engine-3 > engine-2 > engine-1 > engine-0" in text_of_many
    assert "3 slower series are not listed." in text_of_many
    assert len(text_of_many.splitlines()) < 45
