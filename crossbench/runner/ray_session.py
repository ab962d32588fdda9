"""A Ray that this process has started, or a cluster that it has joined."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossbench.errors import BackendUnavailable, ConfigError, TargetUnreachable
from crossbench.measure.probes import usable_cores
from crossbench.serving.on_ray.roster import NAMESPACE
from crossbench.system.addresses import is_this_machine
from crossbench.system.processes import child_environment
from crossbench.wording import counted

# The least that Ray accepts is 75 MB; requests do not go through it
OBJECT_STORE_BYTES = 80_000_000
# Ray's sockets are some 80 characters below this, and the path of a socket may have 107
LONGEST_BASE = 20
SHORT_FOLDER = "/tmp"  # nosec B108  # mkdtemp makes a folder of our own in it
# Settings of Ray Serve that more than halve the CPU time of a request (benchmarks/ray_serve.py):
# proxies talk gRPC with the replicas, in which everything runs on one event loop
FAST = {
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    "RAY_SERVE_PROXY_USE_GRPC": "1",
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(2**31 - 1),
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
}


@dataclass(frozen=True)
class Node:
    """A machine of the cluster: its IP address, and its resources, whether in use or not."""

    machine: str
    cpus: float
    gpus: float
    is_head: bool


class RaySession:
    """Ray, from start() or join() until leave(). All calls must come from one thread.

    Ray's processes end when that thread ends.
    """

    def __init__(self) -> None:
        self.folder: Path | None = None  # of the Ray that this process has started

    def start(self) -> None:
        """Start Ray on this machine, with the cores that this process may use.

        Raises:
            BackendUnavailable: Ray is not installed.
        """
        _require_ray()
        folder = self.make_folder()
        # For the processes of Ray, which inherit all this
        os.environ["PYTHONPATH"] = child_environment()["PYTHONPATH"]
        for name, value in FAST.items():
            os.environ.setdefault(name, value)
        _init(
            address="local",
            num_cpus=usable_cores(),
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            _temp_dir=str(folder),
        )

    def make_folder(self) -> Path:
        """Return the folder of the Ray that start() starts."""
        if self.folder is None:
            usual = tempfile.gettempdir()
            base = usual if len(usual) <= LONGEST_BASE else SHORT_FOLDER
            self.folder = Path(tempfile.mkdtemp(prefix="cb-", dir=base))
        return self.folder

    def join(self, address: str) -> None:
        """Join the cluster at `address`.

        Raises:
            BackendUnavailable: Ray is not installed.
            TargetUnreachable: no cluster answers there.
        """
        _require_ray()
        try:
            _init(address=address)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise TargetUnreachable(
                f"no Ray cluster answers at target.address={address} ({error}): start one "
                "with `ray start --head`, or leave target.address out"
            ) from error

    def nodes(self) -> list[Node]:
        """Return the machines that live."""
        import ray

        return [
            Node(
                machine=str(told["NodeManagerAddress"]),
                cpus=told["Resources"].get("CPU", 0.0),
                gpus=told["Resources"].get("GPU", 0.0),
                is_head="node:__internal_head__" in told["Resources"],
            )
            for told in ray.nodes()
            if told["Alive"]
        ]

    def leave(self) -> None:
        """End the Ray that this process has started, or leave the cluster."""
        import ray

        ray.shutdown()
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


def check_room(nodes: list[Node], replicas: int, cpus: int, gpus: float) -> None:
    """Check that the nodes could hold the replicas if nothing else ran there.

    Raises:
        ConfigError: they could not; the message has what they have.
    """
    places = sum(_places(node, cpus, gpus) for node in nodes)
    if places >= replicas:
        return
    wanted = counted(cpus, "core") + (f" and {gpus:g} GPUs" if gpus else "")
    have = ", ".join(
        f"{node.machine} has {node.cpus:g} cores and {node.gpus:g} GPUs" for node in nodes
    )
    raise ConfigError(
        f"target.replicas={replicas} of {wanted} each do not fit: Ray has room for {places} "
        f"({have}). Give fewer target.replicas, target.cpus or target.gpus, or add machines"
    )


def _places(node: Node, cpus: int, gpus: float) -> int:
    by_cpus = int(node.cpus // cpus)
    return min(by_cpus, int(node.gpus / gpus + 1e-9)) if gpus else by_cpus


def elsewhere(nodes: list[Node]) -> list[str]:
    """Return the machines of a cluster that are not this one."""
    return [node.machine for node in nodes if not is_this_machine(node.machine)]


def _require_ray() -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to Ray's makers
    try:
        from ray import serve  # noqa: F401
    except ImportError as error:
        raise BackendUnavailable(
            f"target=ray_serve: Ray Serve is not installed ({error}): "
            "pip install 'crossbench[cluster]'"
        ) from error


def _init(**options: Any) -> None:
    import ray

    for name in ("ray", "ray.serve"):
        logging.getLogger(name).setLevel(logging.ERROR)
    ray.init(namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR, **options)
