"""The nodes of a Ray cluster: connect to it, and find out which of them may measure cells."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.markup import escape

from crossbench.errors import ConfigError
from crossbench.sweeps.cluster.remote import MachineId, this_machine
from crossbench.sweeps.launchers import resources_of
from crossbench.sweeps.services import console
from crossbench.system.addresses import split_address

_CONNECT_S = 10.0
_AGAIN_S = 10.0  # after a node did not answer
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Node:
    """A Ray node that may measure cells.

    `name` is its name in the cluster, or that of its host. `has` are its resources by name.
    """

    id: str
    name: str
    has: Mapping[str, float]
    machine: MachineId


@dataclass
class RayNodes:
    """The nodes that a sweep may use.

    `hosts` and `resources` are those of `cluster`. With `allow_shared`, two nodes on one machine
    may measure at the same time.
    """

    address: str | None
    hosts: Sequence[str] | None
    resources: Mapping[str, float]
    allow_shared: bool
    init: Mapping[str, Any]
    _known: dict[str, Node] = field(default_factory=dict)
    _asked: dict[str, Any] = field(default_factory=dict)  # references of Ray by id
    _not_before: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, config: DictConfig) -> RayNodes:
        """Return the nodes for a sweep with this config."""
        cluster = config.cluster
        init = OmegaConf.to_container(config.hydra.launcher.ray.init, resolve=True)
        assert isinstance(init, dict)
        return cls(
            address=cluster.address,
            hosts=None if cluster.hosts is None else [str(host) for host in cluster.hosts],
            resources=resources_of(config),
            allow_shared=config.allow_shared,
            init={str(key): value for key, value in init.items()},
        )

    def connect(self) -> None:
        """Connect to the cluster, or start one on this machine, unless that is done already.

        Raises:
            ConfigError: there is no cluster at the address, or none of its nodes fits.
        """
        import ray
        from hydra_plugins.hydra_ray_launcher._launcher_util import start_ray

        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        arguments: dict[str, Any] = {"address": self.address}
        if self.address is None:
            os.environ.setdefault("RAY_worker_niceness", "0")
            arguments = {"address": "local", **self.init}
        arguments |= {"log_to_driver": False, "logging_level": "error"}
        try:
            self._check_port()
            with _our_signal_handlers():
                start_ray(OmegaConf.create(arguments))
        except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
            raise ConfigError(
                f"cluster.address={self.address}: Ray cannot be reached or started "
                f"({str(error).strip().splitlines()[0]}): start it with ray start --head, or "
                "give cluster.address=HOST:PORT, or null for a Ray of this machine alone"
            ) from error
        if not any(self._fits(found) for found in ray.nodes()):
            raise ConfigError(self._none_fits(ray.nodes()))

    def _check_port(self) -> None:
        """Raise OSError if nobody listens at an address HOST:PORT: Ray itself tries for minutes."""
        if self.address is None or self.address == "auto" or "://" in self.address:
            return
        place = split_address(self.address, "cluster.address")
        socket.create_connection(place, _CONNECT_S).close()

    def slots(self) -> dict[str, list[Node]]:
        """Return the nodes that answer, by what only one cell may use at a time: their machine."""
        slots: dict[str, list[Node]] = {}
        for node in self._usable():
            key = node.id if self.allow_shared else node.machine.boot
            slots.setdefault(key, []).append(node)
        return slots

    def asked(self) -> list[Any]:
        """Return references of Ray; when one is ready, a further node may answer."""
        return list(self._asked.values())

    def suspect(self, node: Node) -> None:
        """Do not use a node until it answers again."""
        self._known.pop(node.id, None)

    def _usable(self) -> Iterator[Node]:
        import ray

        found = {facts["NodeID"]: facts for facts in ray.nodes() if self._fits(facts)}
        for gone in self._asked.keys() - found.keys():
            del self._asked[gone]
        for node_id, facts in found.items():
            if node_id not in self._known:
                self._ask(node_id, facts)
            if node_id in self._known:
                yield self._known[node_id]

    def _ask(self, node_id: str, facts: Mapping[str, Any]) -> None:
        """Ask a node which machine it is on, and note what it answers."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        asked = self._asked.get(node_id)
        if asked is None:
            if time.monotonic() < self._not_before.get(node_id, 0.0):
                return
            there = NodeAffinitySchedulingStrategy(node_id, soft=False)
            task = ray.remote(this_machine).options(
                num_cpus=0, max_retries=0, scheduling_strategy=there
            )
            self._asked[node_id] = task.remote()
        elif ray.wait([asked], timeout=0)[0]:
            del self._asked[node_id]
            try:
                machine = ray.get(asked)
            except ray.exceptions.RayTaskError as error:
                self._not_before[node_id] = math.inf
                why = str(error.cause).strip().splitlines()[-1]
                console.print(
                    f"[yellow]cluster:[/] {escape(_name(facts))} cannot measure cells "
                    f"({escape(why)}): install the same version of crossbench there as here"
                )
                return
            except ray.exceptions.RayError:
                self._not_before[node_id] = time.monotonic() + _AGAIN_S
                return
            self._known[node_id] = Node(node_id, _name(facts), facts["Resources"], machine)

    def _fits(self, facts: Mapping[str, Any]) -> bool:
        names = {_name(facts), facts["NodeManagerHostname"], facts["NodeManagerAddress"]}
        return (
            facts["Alive"]
            and (self.hosts is None or bool(names & {*self.hosts}))
            and all(
                facts["Resources"].get(_ray_name(key), 0) >= amount
                for key, amount in self.resources.items()
            )
        )

    def _none_fits(self, nodes: Sequence[Mapping[str, Any]]) -> str:
        asked = []
        if self.hosts is not None:
            asked.append(f"cluster.hosts=[{','.join(self.hosts)}]")
        if self.resources:
            wanted = ", ".join(f"{key}: {amount:g}" for key, amount in self.resources.items())
            asked.append(f"cluster.resources={{{wanted}}}")
        there = [
            f"{_name(facts)} ({facts['NodeManagerAddress']}) with {_amounts(facts['Resources'])}"
            for facts in nodes
            if facts["Alive"]
        ]
        return (
            f"no machine of the Ray cluster fits {' and '.join(asked) or 'this sweep'}. It has: "
            f"{'; '.join(there) or 'none'}"
        )


def requirements(node: Node, resources: Mapping[str, float]) -> dict[str, Any]:
    """Return the options of an actor that takes a whole node, so that nothing else runs there."""
    others = {key: amount for key, amount in resources.items() if _ray_name(key) not in _WHOLE}
    return {
        "num_cpus": node.has.get("CPU", 0),
        "num_gpus": node.has.get("GPU", 0),
        "resources": others,
    }


_WHOLE = ("CPU", "GPU")


def _ray_name(resource: str) -> str:
    """Ray's name of a resource: gpu is GPU."""
    return resource.upper() if resource.upper() in _WHOLE else resource


def _name(facts: Mapping[str, Any]) -> str:
    """The name that a node was given, or that of its host; Ray's default name is the address."""
    given = facts.get("NodeName")
    return str(
        facts["NodeManagerHostname"] if given in (None, "", facts["NodeManagerAddress"]) else given
    )


def _amounts(resources: Mapping[str, float]) -> str:
    own = {key: amount for key, amount in resources.items() if not key.startswith("node:")}
    own = {key: amount for key, amount in own.items() if "memory" not in key}
    return ", ".join(f"{key}: {amount:g}" for key, amount in sorted(own.items())) or "nothing"


@contextlib.contextmanager
def _our_signal_handlers() -> Iterator[None]:
    """Keep our handlers of stop signals: Ray sets one of its own."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
