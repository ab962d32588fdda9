"""What happens to a request whichever port it came to: it is counted, admitted and computed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import grpc

from crossbench.errors import (
    CrossbenchError,
    DeadlineExpired,
    InvalidRequest,
    NonFiniteValues,
    NotServing,
    OutOfMemory,
    QueueFull,
    UnknownModel,
    WrongTask,
)
from crossbench.serving import inference_pb2 as pb
from crossbench.serving.admission import Admission
from crossbench.serving.finite import NON_FINITE
from crossbench.serving.limits import RequestLimits
from crossbench.serving.pool import SHUTTING_DOWN
from crossbench.serving.server_settings import ServerSettings
from crossbench.serving.service import Answer, ModelService, shortened
from crossbench.serving.telemetry import Telemetry

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Request:
    """What is known of a request before its texts are read.

    `model` is the name that it gives, or "" for the default. `count` is its number of `items`,
    which is their name in error messages, and `size_bytes` its size.
    """

    model: str
    count: int
    items: str
    size_bytes: int


class Intake:
    """Takes in the requests of all ports. The first model is the default.

    All methods run on the event loop. Times are those of `time.perf_counter`.
    """

    def __init__(
        self, services: Mapping[str, ModelService], settings: ServerSettings, telemetry: Telemetry
    ) -> None:
        self.limits = RequestLimits(settings)
        self.telemetry = telemetry
        self.stopping = asyncio.Event()
        self._services = services
        self._admissions = {
            name: Admission(service.pool, service.tokenizing, settings, service.model.max_length)
            for name, service in services.items()
        }

    @property
    def default(self) -> ModelService:
        """The service of the first model."""
        return next(iter(self._services.values()))

    @property
    def serving(self) -> bool:
        """Whether every model has a worker that can serve."""
        return all(item.pool.crew.availability.serving for item in self._services.values())

    def drain(self) -> None:
        """Refuse new requests, and let streams that would run for ever end."""
        self.stopping.set()

    async def count(
        self,
        compute: Callable[[], Awaitable[Answer]],
        arrived_s: float,
        deadline_s: float | None,
    ) -> Answer:
        """Await `compute` and count the request, as done or under the status of its error.

        Raises:
            NotServing: the server is shutting down.
            Exception: what `compute` raises.
        """
        telemetry = self.telemetry
        if self.stopping.is_set():
            telemetry.request_failed(grpc.StatusCode.UNAVAILABLE.name)
            raise NotServing(SHUTTING_DOWN)
        telemetry.in_flight += 1
        try:
            answer = await compute()
        except CrossbenchError as error:
            telemetry.request_failed(status_of(error).name)
            raise
        except asyncio.CancelledError:
            expired = deadline_s is not None and time.perf_counter() >= deadline_s
            telemetry.request_failed("DEADLINE_EXCEEDED" if expired else "CANCELLED")
            raise
        except Exception:
            log.exception("a request failed")
            telemetry.request_failed("INTERNAL")
            raise
        finally:
            telemetry.in_flight -= 1
        latency_ms = (time.perf_counter() - arrived_s) * 1e3
        telemetry.request_done(
            latency_ms, answer.timing, len(answer.values), answer.tokens, answer.truncated
        )
        return answer

    async def admit(
        self,
        request: Request,
        arrived_s: float,
        deadline_s: float | None,
        run: Callable[[ModelService], Awaitable[Answer]],
    ) -> Answer:
        """Check that a request may be taken, and answer it with `run`.

        Raises:
            InvalidRequest: it has no or too many items, or names an unknown model.
            QueueFull: it would wait too long.
        """
        self.limits.check_count(request.count, request.items)
        name = request.model or next(iter(self._services))
        if name not in self._services:
            raise UnknownModel(
                f"this server has no model {shortened(name)}: use one of "
                f"{', '.join(self._services)}"
            )
        admission = self._admissions[name]
        admission.check(request.count, request.size_bytes, deadline_s, arrived_s)
        answer = await run(self._services[name])
        admission.learn(request.size_bytes, answer.tokens)
        return answer

    def metrics(self) -> pb.Metrics:
        """Return the counters, the length of the queue and the memory of the devices."""
        metrics = self.telemetry.snapshot()
        services = self._services.values()
        metrics.queue_pairs = sum(service.pool.waiting for service in services)
        memories = [replica.memory() for service in services for replica in service.replicas]
        current = [m.current_mb for m in memories if m.current_mb is not None]
        peak = [m.peak_mb for m in memories if m.peak_mb is not None]
        if current:
            metrics.device_memory_mb = sum(current)
        if peak:
            metrics.device_memory_peak_mb = sum(peak)
        return metrics


def status_of(error: CrossbenchError) -> grpc.StatusCode:
    """Return gRPC's status for an error, under which it is also counted."""
    if isinstance(error, InvalidRequest):
        return grpc.StatusCode.INVALID_ARGUMENT
    if isinstance(error, WrongTask):
        return grpc.StatusCode.FAILED_PRECONDITION
    if isinstance(error, QueueFull | OutOfMemory):
        return grpc.StatusCode.RESOURCE_EXHAUSTED
    if isinstance(error, NotServing):
        return grpc.StatusCode.UNAVAILABLE
    if isinstance(error, DeadlineExpired):
        return grpc.StatusCode.DEADLINE_EXCEEDED
    if isinstance(error, NonFiniteValues):
        return NON_FINITE
    return grpc.StatusCode.INTERNAL
