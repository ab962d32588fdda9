"""The clients for programs: `crossbench.Client` and `crossbench.AsyncClient`."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from crossbench import AsyncClient, Client, Ranked
from crossbench.errors import ConfigError, RequestFailed
from crossbench.models.folder import ModelFolder
from crossbench.serving.client import InferenceClient
from crossbench.serving.tls import ServerTls
from tests.helpers.certificates import Authority
from tests.helpers.serving import gated, noop, serving

TOKEN = "a-token-of-these-tests-0123456789"
PASSAGES = ["one two", "one two three four", "one"]  # noop scores a pair with its length


def test_both_clients_rank_passages_over_tls_with_a_token(
    seeded_model: ModelFolder, tmp_path: Path
) -> None:
    authority = Authority(tmp_path, "authority")
    pair = authority.issue("server", "localhost")
    token = tmp_path / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    options = {"ca": authority.pem, "server_name": "localhost", "token_file": str(token)}

    def without_asyncio(address: str) -> list[Ranked]:
        with Client(address, **options) as client:
            assert client.score("q", PASSAGES).dtype == np.float32
            return client.rerank("q", PASSAGES, top_n=2)

    async def run() -> None:
        tls = ServerTls(pair.cert, pair.key, None)
        async with serving([noop(seeded_model)], tls=tls, token_file=str(token)) as address:
            ranked = await asyncio.to_thread(without_asyncio, address)
            assert [found.index for found in ranked] == [1, 0]
            async with AsyncClient(address, **options) as client:
                found = await client.rerank("q", PASSAGES)
                assert found[:2] == ranked
                assert [item.index for item in found] == [1, 0, 2]
                with pytest.raises(RequestFailed, match=r"FAILED_PRECONDITION: .*cross-encoder"):
                    await client.embed(PASSAGES)
            async with AsyncClient(address, ca=authority.pem, server_name="localhost") as client:
                with pytest.raises(RequestFailed) as failed:
                    await client.score("q", PASSAGES)
                assert failed.value.status == "UNAUTHENTICATED"

    asyncio.run(run())


def test_a_request_without_an_answer_fails_in_time_and_a_refused_one_says_when_to_come_again(
    seeded_model: ModelFolder,
) -> None:
    async def run() -> None:
        backend = gated(seeded_model)
        async with (
            serving([backend], max_queue_pairs=1) as address,
            AsyncClient(address) as client,
            AsyncClient(address, timeout_s=0.2) as hasty,
            InferenceClient(address) as watcher,
        ):

            async def failure() -> RequestFailed:
                with pytest.raises(RequestFailed) as failed:
                    await hasty.score("q", PASSAGES[:1])
                return failed.value

            waiting = [asyncio.create_task(client.score("q", PASSAGES[:1]))]
            while not backend.ran:
                await asyncio.sleep(0.01)
            assert (await failure()).status == "DEADLINE_EXCEEDED"
            waiting.append(asyncio.create_task(client.score("q", PASSAGES[:1])))
            while (await watcher.metrics()).queue_pairs < 1:
                await asyncio.sleep(0.01)
            refused = await failure()
            assert refused.status == "RESOURCE_EXHAUSTED"
            assert refused.retry_after_s is not None
            backend.gate.set()
            await asyncio.gather(*waiting)

    asyncio.run(asyncio.wait_for(run(), 60))


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"server\.address"):
        Client("nowhere")
