"""target=http: cells against a real HTTP server, which computes a tiny model or misbehaves."""

from __future__ import annotations

import io
import json
import math
import ssl
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from crossbench.errors import ConfigError
from crossbench.events import ServerListens, decode
from crossbench.measure.ranking import Verdict
from crossbench.measure.score_scale import Scale
from crossbench.measure.scraped import SCRAPE_FILE, save_scraped
from crossbench.models.folder import ModelFolder
from crossbench.report.axes import full_label, label, varying
from crossbench.results import Status
from crossbench.runner.cell import Outcome, measure_cell
from crossbench.runner.checks import check_config
from crossbench.runner.event_stream import EventStream
from crossbench.settings.cell_config import CellConfig
from crossbench.settings.reproduce import cell_overrides, server_overrides
from crossbench.system.rows import load_rows
from tests.helpers.bad_servers import bad_server, free_port
from tests.helpers.certificates import Authority, Pair
from tests.helpers.engine_checks import tiny_model
from tests.helpers.http_servers import TOKEN, Rerankers, Scorer, rerankers, scorer_of, sigmoid
from tests.helpers.plans import config_of
from tests.helpers.tiny_seeded import tiny_seeded

QUICK = (
    "target=http", "tracker=none", "dashboard=none", "stop=fixed", "requests=6",
    "warmup_requests=1", "warmup_max_seconds=0.2", "max_seconds=20", "batch=12",
    "dataset.queries=12", "dataset.passages_per_query=12",
)  # fmt: skip
UNKNOWN = ("backend", "quant", "device", "scheduler", "pool", "server")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def logits(model: ModelFolder, cache_dir: Path) -> Scorer:
    return scorer_of(model, cache_dir)


@pytest.fixture(scope="module")
def good() -> Iterator[Rerankers]:
    with rerankers() as server:
        yield server


def config(cache_dir: Path, model: ModelFolder, url: str, *overrides: str) -> CellConfig:
    given = ("target.api=tei", *overrides)
    return config_of(
        *QUICK, "model=local", f"model.path={model.path}",
        f"model.max_length={model.max_length}", f"cache_dir={cache_dir}",
        f"target.url='{url}'", *given,
    )  # fmt: skip


def measured(config: CellConfig) -> Outcome:
    return measure_cell(config, EventStream(io.StringIO()))


@pytest.mark.parametrize("api", ["tei", "cohere", "jina", "vllm_score", "nim", "infinity"])
def test_a_cell_of_every_api(
    api: str, good: Rerankers, model: ModelFolder, cache_dir: Path
) -> None:
    good.requests.clear()
    events = io.StringIO()
    outcome = measure_cell(
        config(cache_dir, model, good.url, f"target.api={api}", "batch=16", "quality=none"),
        EventStream(events),
    )
    result = outcome.result
    assert result.status is Status.FINISHED, result.error
    assert [record.pairs for record in outcome.records] == [16] * 6
    # What the server does not tell is absent, not zero
    assert not any(name.startswith(("stage/", "batching/")) for name in result.metrics)
    assert not {"throughput/tokens_per_s", "memory/model_mb", "requests/truncated_pairs"} & {
        *result.metrics
    }
    assert "correlation/tokens" not in result.metrics
    assert result.metrics["throughput/pairs_per_s"] > 0
    assert not {*UNKNOWN} & result.config.document.keys()
    assert not {*UNKNOWN, "encoder", "threads"} & result.model.keys()
    assert result.model["digest"] == model.digest
    told = f"This is not a server of crossbench (target.api={api}): "
    assert str(result.model["caveat"]).startswith(told)
    assert label(result.config) == f"{api} batch=16 concurrency=1"
    # The live page must not take it for a server of crossbench
    decoded = [decode(line) for line in events.getvalue().splitlines()]
    assert not [item for item in decoded if item and isinstance(item.event, ServerListens)]


@pytest.mark.parametrize(
    ("change", "scale"),
    [
        (lambda x: x, Scale.LOGIT),  # the reference has sigmoids
        (sigmoid, Scale.SAME),
        (lambda x: sigmoid(sigmoid(x)), Scale.SIGMOID),
        (lambda x: 1000 + 50 * x, Scale.OTHER),
    ],
)
def test_score_parity_recognises_the_scale(
    change: Callable[[float], float],
    scale: Scale,
    logits: Scorer,
    model: ModelFolder,
    cache_dir: Path,
) -> None:
    with rerankers(lambda query, texts: [change(x) for x in logits(query, texts)]) as server:
        outcome = measured(config(cache_dir, model, server.url, "requests=1"))
        assert outcome.check_quality is not None
        summary = (checked := outcome.check_quality()).summary
    assert summary["scale"] == scale
    assert summary["verdict"] == Verdict.SAME_ORDER
    assert summary["same_scores"] == (scale is not Scale.OTHER)
    assert ("quality/max_abs_diff" in checked.metrics) == (scale is not Scale.OTHER)
    assert checked.metrics["quality/kendall_tau"] == pytest.approx(1)
    if scale is not Scale.OTHER:
        assert checked.metrics["quality/max_abs_diff"] < 1e-5


def test_score_parity_finds_a_server_that_ranks_otherwise(
    logits: Scorer, model: ModelFolder, cache_dir: Path
) -> None:
    """It cuts the texts, as a server with a small limit does without a word."""

    def cut(query: str, texts: Sequence[str]) -> list[float]:
        return [sigmoid(x) for x in logits(query, [text[:20] for text in texts])]

    with rerankers(cut) as server:
        outcome = measured(config(cache_dir, model, server.url, "requests=1"))
        assert outcome.check_quality is not None
        summary = outcome.check_quality().summary
    assert summary["verdict"] == Verdict.UNSURE
    assert "the order changed in" in summary["reason"]
    assert not summary["same_scores"]


def test_an_embedding_server(tmp_path: Path, good: Rerankers, cache_dir: Path) -> None:
    embedder = tiny_seeded(tmp_path, pooling="mean")
    overrides = ("target.api=openai_embeddings", "load.task=embed", "target.model=e")
    outcome = measured(config(cache_dir, embedder, good.url, *overrides, "quality=none"))
    assert outcome.result.status is Status.FINISHED, outcome.result.error
    assert outcome.result.metrics["throughput/texts_per_s"] > 0
    assert good.requests[-1][2]["model"] == "e"


def test_the_token_and_the_metrics_of_the_server(
    model: ModelFolder, cache_dir: Path, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    token.chmod(0o644)
    with rerankers(token=TOKEN) as server:
        outcome = measured(config(
            cache_dir, model, server.url, "quality=none", f"target.token_file={token}",
            f"target.scrape='{server.url}/metrics'", "target.body={raw_scores:true}",
        ))  # fmt: skip
    result = outcome.result
    assert result.status is Status.FINISHED, result.error
    assert any("can be read by other users" in warning for warning in result.warnings)
    assert TOKEN not in json.dumps(result.config.document)
    assert all(body["raw_scores"] for _, _, body in server.requests)
    assert result.metrics["scrape/queue_size_max"] == 3
    assert result.metrics["scrape/batch_size_mean"] == 8
    assert result.metrics["scrape/requests_per_s"] > 0
    save_scraped(outcome.scraped, tmp_path)
    rows = load_rows(
        tmp_path / SCRAPE_FILE,
        lambda *row: row,  # type: ignore[arg-type]
        ["family", "labels", "value"],
    )
    assert ("queue_size", "", 3.0) in rows  # type: ignore[comparison-overlap]
    assert {labels for family, labels, _ in rows if family == "requests"} == {'path="/rerank"'}  # type: ignore[misc]


def answer_of(text: str, status: int = 200, kind: str = "application/json", **headers: str) -> Any:
    return lambda request, body: web.Response(
        text=text, status=status, content_type=kind, headers=headers
    )


def listed(*scores: Any) -> Any:
    results = [{"index": index, "score": score} for index, score in enumerate(scores)]
    return answer_of(json.dumps(results))


async def gigabyte(request: web.Request, body: Any) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(1024):
        await response.write(b" " * (1 << 20))
    return response


WRONG = {
    "404": (answer_of("not here", 404), "HTTP 404 Not Found: not here"),
    "HTML": (
        answer_of("<html>Log in</html>", kind="text/html"),
        "the server answered with text/html; charset=utf-8 instead of JSON (<html>Log in</html>): "
        "look whether target.url is the server that you mean",
    ),
    "too short": (
        listed(1),
        "1 of 2 results are missing, the first of index 1: look whether it has target.api=tei",
    ),
    "text": (
        listed("1", "2"),
        "the score of index 0 is '1', which is no number: look whether it has target.api=tei",
    ),
    "NaN": (listed(math.nan, 1), "NaN or infinite"),
    "a gigabyte": (gigabyte, "the reply has more than 1,000,000 bytes"),
    "a redirect": (answer_of("", 308, Location="/x"), "which is not followed: give target.url="),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_endpoint_is_a_clear_failed_cell(
    kind: str, model: ModelFolder, cache_dir: Path
) -> None:
    answer, told = WRONG[kind]
    with rerankers(answer=answer) as server:
        result = measured(
            config(cache_dir, model, server.url, "target.max_reply_bytes=1000000")
        ).result
        assert len(server.requests) == 1
    assert result.status is Status.FAILED
    assert result.error is not None
    assert result.error.startswith(f"{server.url} cannot be measured with target.api=tei: ")
    assert told in result.error


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("silent", "no reply within 0.3 s: look whether the server is ready, or give a higher "),
        ("no http", "look whether target.url is the server that you mean"),
    ],
)
def test_a_server_that_hangs_or_speaks_no_http(
    kind: str, told: str, model: ModelFolder, cache_dir: Path
) -> None:
    with bad_server(kind) as server:
        url = f"http://127.0.0.1:{server.port}"
        result = measured(config(cache_dir, model, url, "target.connect_timeout_s=0.3")).result
    assert result.status is Status.FAILED
    assert told in str(result.error)


def self_signed(folder: Path) -> Pair:
    return Authority(folder, "server", "127.0.0.1").own


CERTIFICATES: dict[str, tuple[Callable[[Path], Pair], str]] = {
    "self-signed": (
        self_signed, "refused (self-signed certificate): give target.ca=FILE with this certificate"
    ),
    "of an unknown authority": (
        lambda folder: Authority(folder, "authority").issue("server", "127.0.0.1"),
        "(unable to get local issuer certificate): give target.ca=FILE with the authority that",
    ),
    "expired": (
        lambda folder: Authority(folder, "ca").issue("server", "127.0.0.1", days=-1),
        "refused (certificate has expired): the server needs a new one",
    ),
    "for another name": (
        lambda folder: Authority(folder, "ca").issue("server", "localhost"),
        "'127.0.0.1'): give a name that is in it as the host of target.url",
    ),
}  # fmt: skip


def secured(pair: Pair) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.cert, pair.key)
    return context


@pytest.mark.parametrize("kind", CERTIFICATES)
def test_a_certificate_that_is_not_trusted_is_a_clear_failed_cell(
    kind: str, model: ModelFolder, cache_dir: Path, tmp_path: Path
) -> None:
    make, told = CERTIFICATES[kind]
    context = secured(make(tmp_path))
    ca = [f"target.ca={tmp_path / 'ca.pem'}"] if (tmp_path / "ca.pem").exists() else []
    with rerankers(tls=context) as server:
        result = measured(config(cache_dir, model, server.url, *ca)).result
        assert not server.requests
    assert result.status is Status.FAILED
    assert result.error is not None
    assert result.error.startswith(
        f"{server.url} cannot be measured with target.api=tei: the server's certificate is refused"
    )
    assert told in result.error


@pytest.mark.slow
def test_a_self_signed_certificate_that_is_trusted(
    model: ModelFolder, cache_dir: Path, tmp_path: Path
) -> None:
    pair = self_signed(tmp_path)
    with rerankers(tls=secured(pair)) as server:
        result = measured(config(
            cache_dir, model, server.url, f"target.ca={pair.cert}", "quality=none",
            f"target.scrape='{server.url}/metrics'",
        )).result  # fmt: skip
    assert result.status is Status.FINISHED, result.error
    assert result.metrics["scrape/queue_size_max"] == 3


def test_nobody_listens(model: ModelFolder, cache_dir: Path) -> None:
    result = measured(config(cache_dir, model, f"http://127.0.0.1:{free_port()}")).result
    assert result.status is Status.FAILED
    assert "no connection (Connection refused): look whether the server runs" in str(result.error)


def test_a_server_that_breaks_while_it_is_measured(
    good: Rerankers, model: ModelFolder, cache_dir: Path
) -> None:
    """It answers the first requests, and then with too few results."""
    asked = 0

    def answer(request: web.Request, body: Any) -> web.Response:
        nonlocal asked
        asked += 1
        texts = len(body["texts"]) - (asked % 5 == 0)
        return web.json_response([{"index": i, "score": 0.5} for i in range(texts)])

    with rerankers(answer=answer) as server:
        result = measured(config(cache_dir, model, server.url, "requests=9")).result
    assert result.status is Status.FINISHED, result.error
    assert any("1 of 12 results are missing" in warning for warning in result.warnings)


@pytest.mark.parametrize("page", [answer_of("", 404), None])
def test_metrics_that_cannot_be_scraped(
    page: Any, good: Rerankers, model: ModelFolder, cache_dir: Path
) -> None:
    url = f"{good.url}/nothing" if page else f"http://127.0.0.1:{free_port()}"
    result = measured(config(cache_dir, model, good.url, f"target.scrape='{url}'")).result
    assert result.status is Status.FAILED
    assert f"target.scrape={url} has no metrics that can be read" in str(result.error)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("target.url=127.0.0.1:80", "target.url must be http://HOST:PORT"),
        ("target.url='http://user:secret@h/'", "target.url has a user name or a password"),
        ("target.url='http://h:99999999'", "target.url must be"),
        ("target.scrape=metrics", "target.scrape must be"),
        ("target.api=grpc", "target.api must be tei or cohere"),
        ("target.path=rerank", "target.path must begin with a slash"),
        ("target.token_file=/nowhere/token", "target.token_file=/nowhere/token cannot be read"),
        ("target.ca=/nowhere/ca", "target.ca=/nowhere/ca cannot be used"),
        ("target.max_connections=0", "target.max_connections must be above 0"),
        ("load.task=embed", "target.api=tei scores pairs and has no embeddings"),
        ("pipeline=tokenize", "only a server of crossbench can run one stage"),
    ],
)
def test_a_setting_that_cannot_be_used(
    override: str, told: str, model: ModelFolder, cache_dir: Path
) -> None:
    with pytest.raises(ConfigError, match=told):
        check_config(config(cache_dir, model, "http://127.0.0.1:9", override))


def test_names_and_commands_of_cells(model: ModelFolder, cache_dir: Path) -> None:
    """Cells of several servers are told by their targets, and claim no backend."""
    ours = config_of("backend=noop")
    tei = config(cache_dir, model, "http://127.0.0.1:9")
    mine = config(cache_dir, model, "http://127.0.0.1:8", "target.name=mine", "target.api=jina")
    axes = varying([ours, tei, mine])
    assert axes[:2] == ["model", "backend"]
    assert not {"quant", "device", "pool", "scheduler", "server"} & {*axes}
    some = [axis for axis in axes if axis in ("backend", "target", "batch")]
    assert [label(cell, some) for cell in (ours, tei, mine)] == [
        "noop inprocess batch=32", "tei batch=12", "mine batch=12"
    ]  # fmt: skip
    assert full_label(tei) == "tei batch=12 concurrency=1"
    assert tei.cell_id != mine.cell_id
    overrides = cell_overrides(tei)
    assert overrides is not None
    assert {"target=http", "target.api=tei", 'target.url="http://127.0.0.1:9"'} <= {*overrides}
    assert server_overrides(tei) is None
    given = config_of("target=http", "target.api=tei", "target.url='http://h'", "backend=noop")
    plain = config_of("target=http", "target.api=tei", "target.url='http://h'")
    assert given.cell_id == plain.cell_id  # a backend says nothing about the server
