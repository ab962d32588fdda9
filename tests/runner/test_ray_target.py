"""target=ray_serve, as far as it needs no Ray: its config, and what it refuses."""

from __future__ import annotations

import asyncio
import pickle
import socket
import sys
from pathlib import Path

import pytest

from crossbench.errors import BackendUnavailable, ConfigError, ModelError
from crossbench.runner.checks import check_config
from crossbench.runner.compose import server_maker
from crossbench.runner.measure import counters_warning
from crossbench.runner.models import fetch_model, on_this_machine
from crossbench.runner.ray_session import Node, check_room, elsewhere
from crossbench.runner.ray_target import RayServe, free_port
from crossbench.serving import inference_pb2 as pb
from crossbench.settings.plan import make_plan
from tests.helpers.certificates import Authority
from tests.helpers.plans import config_of, plan_of

HERE = Node("127.0.0.1", 2.0, 0.0, is_head=True)


def test_its_server_is_ours() -> None:
    """All settings of a server count, and its address and time to end are the server's."""
    plan = make_plan(config_of("target=ray_serve", "target.replicas=2", "server.port=50061"))
    assert plan.server is not None
    target = plan.target.build()
    assert isinstance(target, RayServe)
    assert (target.replicas, target.port, target.host) == (2, 50061, "127.0.0.1")
    assert target.address is None


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("target.replicas=0", "target.replicas must be at least 1"),
        ("target.cpus=0", "target.cpus must be at least 1"),
        ("target.cpus=0.5", "target.cpus must be a whole number"),
        ("target.gpus=-1", "target.gpus must be at least 0"),
        ("target.address=ray://head:10001", "target.address=HOST:6379"),
        ("target.proxies=all", "target.proxies must be head or every_node"),
        ("server.http.port=8081", "target=ray_serve serves gRPC only"),
    ],
)
def test_values_that_cannot_be_used(override: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        check_config(config_of("target=ray_serve", override))


def test_tls_is_refused_because_the_proxies_have_none(tmp_path: Path) -> None:
    pair = Authority(tmp_path, "authority").issue("server", "127.0.0.1")
    tls = (f"server.tls.cert={pair.cert}", f"server.tls.key={pair.key}")
    with pytest.raises(ConfigError, match="no TLS, so the requests would travel in plain text"):
        check_config(config_of("target=ray_serve", *tls))


def test_replicas_that_do_not_fit() -> None:
    worker = Node("10.0.0.2", 4.0, 1.0, is_head=False)
    check_room([HERE, worker], replicas=3, cpus=2, gpus=0)
    check_room([HERE, worker], replicas=2, cpus=1, gpus=0.5)
    with pytest.raises(ConfigError, match=r"room for 3 \(127.0.0.1 has 2 cores and 0 GPUs, 10"):
        check_room([HERE, worker], replicas=4, cpus=2, gpus=0)
    with pytest.raises(ConfigError, match="64 cores each do not fit: Ray has room for 0"):
        check_room([HERE], replicas=1, cpus=64, gpus=0)
    with pytest.raises(ConfigError, match="room for 1"):
        check_room([HERE, worker], replicas=2, cpus=1, gpus=1)


def test_a_model_that_another_machine_has_is_fetched_here(cache_dir: Path) -> None:
    """A replica may run where the folder of the machine that started it does not exist."""
    plan = plan_of("backend=noop", cache_dir=cache_dir)
    model = fetch_model(plan)
    assert on_this_machine(plan, model) is model
    server_maker(plan, model)  # the digest travels with the model from now on
    there = pickle.loads(pickle.dumps(model))
    object.__setattr__(there, "path", Path("/on/another/machine"))
    assert on_this_machine(plan, there).path == model.path
    vars(there)["digest"] = "0123"
    with pytest.raises(ModelError, match="is another model than /on/another/machine"):
        on_this_machine(plan, there)


def test_machines_elsewhere() -> None:
    assert elsewhere([HERE, Node("203.0.113.9", 4.0, 0.0, is_head=False)]) == ["203.0.113.9"]


def test_a_port_that_is_in_use() -> None:
    assert free_port(0) > 0
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"server.port={port} cannot be used"):
            free_port(port)


def test_without_the_extra_the_command_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    target = make_plan(config_of("target=ray_serve")).target.build()

    async def opened() -> None:
        try:
            await target.open(lambda: None)
        finally:
            await target.close()

    with pytest.raises(BackendUnavailable, match=r"pip install 'crossbench\[cluster\]'"):
        asyncio.run(opened())
    assert target.cluster.folder is None or not target.cluster.folder.exists()


def test_counters_that_do_not_cover_the_measurement_are_told() -> None:
    assert counters_warning(pb.Metrics(since_reset_s=3.0, replicas=2), 2.0) == ""
    assert "counters were reset" in counters_warning(pb.Metrics(since_reset_s=1.0), 2.0)
    again = pb.Metrics(since_reset_s=1.0, replicas=2)
    assert "a replica was started again" in counters_warning(again, 2.0)
    lost = pb.Metrics(since_reset_s=3.0, replicas=1, replicas_missing=1)
    assert "1 replica of 2 did not tell" in counters_warning(lost, 2.0)
