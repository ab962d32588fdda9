"""Measure cells on the machines of a Ray cluster: one cell at a time on each.

A cell runs in an actor that takes the whole Ray node, so that no other work of the cluster is there
meanwhile. A machine that is lost hands nothing back, and its cell goes to another one.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from crossbench.errors import ConfigError
from crossbench.settings.cell_config import CellConfig
from crossbench.sweeps.cluster.carried import (
    Carried,
    Content,
    MissingFiles,
    carried_files,
    read_content,
)
from crossbench.sweeps.cluster.placement import Placement
from crossbench.sweeps.cluster.ray_nodes import Node, RayNodes, requirements
from crossbench.sweeps.cluster.reception import Reception
from crossbench.sweeps.cluster.remote import CellCall, CellRunner
from crossbench.sweeps.services import console
from crossbench.system.stop_signals import raise_if_stopped
from crossbench.wording import counted, duration

_LOOK_S = 1.0  # how often new machines are looked for
_SILENT_S = 30.0  # after which a cell that has not begun is mentioned
_STOP_S = 40.0  # for cells to hand back what they have, after Ctrl-C
_LAST_S = 5.0  # for the last events of a cell that has ended
_NO_MACHINE_S = 60.0  # for a machine to join when none is left


@dataclass(slots=True)
class _Running:
    """A cell that is being measured: where, and the references of Ray to its result and events."""

    call: CellCall
    node: Node
    runner: Any
    result: Any
    events: Any
    silent_since: float | None = field(default_factory=time.monotonic)  # None: it has begun

    @property
    def number(self) -> int:
        return self.call.number


class RayCluster:
    """Measures cells on the nodes of a Ray cluster."""

    def __init__(self, nodes: RayNodes) -> None:
        self._nodes = nodes
        self._runners: dict[str, Any] = {}  # actors by the id of their node
        self._running: dict[str, _Running] = {}  # by the key of their slot
        self._contents: dict[str, Content] = {}  # of files that were sent, by digest
        self._hashed: dict[str, list[Carried]] = {}

    def measure(self, placement: Placement, reception: Reception) -> None:
        """See `launch.Cluster`."""
        try:
            self._nodes.connect()
            self._measure(placement, reception)
        except KeyboardInterrupt:
            self._stop(reception)
            raise
        except ConfigError as error:  # it has gone since the sweep began
            for number in placement.give_up():
                reception.fail(number, str(error))
        finally:
            self._release()

    def _measure(self, placement: Placement, reception: Reception) -> None:
        without_machine_since: float | None = None
        while placement.waiting or self._running:
            raise_if_stopped()
            if placement.waiting:
                self._place(placement, reception)
            self._wait(self._nodes.asked() if placement.waiting else [])
            for slot, cell in list(self._running.items()):
                self._follow(slot, cell, placement, reception)
            if self._running or not placement.waiting:
                without_machine_since = None
                continue
            without_machine_since = without_machine_since or time.monotonic()
            if time.monotonic() - without_machine_since > _NO_MACHINE_S:
                for number in placement.give_up():
                    reception.fail(
                        number,
                        f"no machine of the cluster was left for {duration(_NO_MACHINE_S)}, so the "
                        "cell was not measured: resume the sweep when there is one",
                    )

    def _place(self, placement: Placement, reception: Reception) -> None:
        """Give a cell to each idle machine."""
        slots = self._nodes.slots()
        placement.keep_only({*slots, *self._running})
        for slot, nodes in slots.items():
            if slot in self._running:
                continue
            number = placement.next(slot, others=len(slots) > 1)
            if number is None:
                continue
            node = next((node for node in nodes if node.id in self._runners), nodes[0])
            reception.start(number, node.name)
            runner = self._runner(node)
            config = reception.configs[number]
            call = CellCall(number, config, node.name, tuple(self._carried(config)))
            self._running[slot] = _Running(
                call, node, runner, runner.measure.remote(call), runner.events.remote(number)
            )

    def _runner(self, node: Node) -> Any:
        """Return the actor of a node; it is started if there is none."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        if node.id not in self._runners:
            self._runners[node.id] = (
                ray.remote(CellRunner)
                .options(
                    **requirements(node, self._nodes.resources),
                    scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False),
                    max_concurrency=4,  # a cell, its events, a stop
                    max_restarts=0,
                    max_task_retries=0,
                )
                .remote()
            )
        return self._runners[node.id]

    def _wait(self, asked: list[Any]) -> None:
        """Wait until something happens to a cell or a node was `asked`, at most a second."""
        import ray

        refs = [ref for cell in self._running.values() for ref in (cell.result, cell.events) if ref]
        if refs or asked:
            ray.wait([*refs, *asked], timeout=_LOOK_S)
        else:
            time.sleep(_LOOK_S)

    def _follow(
        self, slot: str, cell: _Running, placement: Placement, reception: Reception
    ) -> None:
        """Take in what a cell has sent."""
        import ray

        if cell.events is not None and ray.wait([cell.events], timeout=0)[0]:
            try:
                lines = ray.get(cell.events)
            except ray.exceptions.RayError:  # its result says why
                cell.events = None
            else:
                reception.events(cell.number, lines)
                cell.events = cell.runner.events.remote(cell.number)
                cell.silent_since = None
        if ray.wait([cell.result], timeout=0)[0]:
            if not self._send_files(cell):
                del self._running[slot]
                self._end(slot, cell, placement, reception)
        elif cell.silent_since and time.monotonic() - cell.silent_since > _SILENT_S:
            cell.silent_since = None
            reception.tell(
                cell.number,
                f"{cell.node.name} has not begun after {_SILENT_S:g} s: it is busy with other work "
                "of the Ray cluster, or its worker is still starting",
            )

    def _send_files(self, cell: _Running) -> bool:
        """Call again with the files that the machine lacks; return False if it lacks none."""
        import ray

        try:
            ray.get(cell.result)
        except ray.exceptions.RayTaskError as error:
            missing = error.cause
        except ray.exceptions.RayError:
            return False
        else:
            return False
        if not isinstance(missing, MissingFiles):
            return False
        paths = {item.digest: item.path for item in cell.call.files}
        for digest in missing.digests:
            if digest not in self._contents:
                console.tell(f"sending {paths[digest]} to {cell.node.name}")
                self._contents[digest] = read_content(Path(paths[digest]), ray.put)
        contents = {digest: self._contents[digest] for digest in missing.digests}
        cell.call = replace(cell.call, contents=contents)
        cell.result = cell.runner.measure.remote(cell.call)
        return True

    def _carried(self, config: CellConfig) -> list[Carried]:
        """Return the files that a config names; they are hashed once."""
        key = str([config.value(name) for name in ("model.path", "dataset.path", "load.path")])
        key += str(config.value("pool.models"))
        if key not in self._hashed:
            self._hashed[key] = carried_files(config)
        return self._hashed[key]

    def _end(self, slot: str, cell: _Running, placement: Placement, reception: Reception) -> None:
        import ray

        try:
            archive = ray.get(cell.result)
        except ray.exceptions.RayTaskError as error:  # raised by our own code there
            reception.fail(cell.number, f"on {cell.node.name}: {error.cause}")
        except ray.exceptions.RayError as error:
            self._nodes.suspect(cell.node)
            self._kill(cell.node.id)
            what = f"{cell.node.name} was lost while it measured the cell"
            if placement.lose(cell.number, slot):
                reception.tell(cell.number, f"{what}, so it is measured again")
            else:
                reason = str(error).strip().splitlines()[0]
                tried = f"it was tried as often as cluster.tries={placement.tries} says"
                reception.fail(cell.number, f"{what}: {reason} ({tried})")
        else:
            self._take_last_events(cell, reception)
            reception.receive(cell.number, archive)

    def _take_last_events(self, cell: _Running, reception: Reception) -> None:
        """Take in the events that were sent together with the result."""
        import ray

        for events in (cell.events, cell.runner.events.remote(cell.number)):
            with contextlib.suppress(ray.exceptions.RayError):
                if events is not None:
                    reception.events(cell.number, ray.get(events, timeout=_LAST_S))

    def _stop(self, reception: Reception) -> None:
        """End the cells that are measured, and take what they have so far."""
        import ray

        cells = list(self._running.values())
        if cells:
            console.print(
                f"stopping: what {counted(len(cells), 'cell')} measured so far is fetched"
            )
        for cell in cells:
            cell.runner.stop.remote()
        deadline = time.monotonic() + _STOP_S
        for cell in cells:
            left_s = max(0.0, deadline - time.monotonic())
            try:
                reception.receive(cell.number, ray.get(cell.result, timeout=left_s))
            except ray.exceptions.RayError:  # lost, or too late
                continue
            except KeyboardInterrupt:  # once more
                break
        self._running.clear()

    def _release(self) -> None:
        """End all actors, so that other work of the cluster can use the machines."""
        for node_id in list(self._runners):
            self._kill(node_id)

    def _kill(self, node_id: str) -> None:
        """End the actor of a node, which may live and only be cut off."""
        import ray

        runner = self._runners.pop(node_id, None)
        if runner is not None:
            ray.kill(runner)
