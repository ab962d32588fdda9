"""All exceptions that users may see. A message says what is wrong, what was given and what to do.

CrossbenchError
+-- ConfigError              a value, key or combination in the configuration cannot be used
|   +-- UnsupportedQuant     the backend does not support the precision
|   +-- UnsupportedDevice    the backend does not support the type of device
+-- BackendUnavailable       this machine lacks a library or device that the backend needs
+-- ModelError               a model folder is missing, incomplete or broken
+-- DatasetError             a data set is missing, empty or malformed
+-- InvalidRequest           the server rejects a malformed request (gRPC INVALID_ARGUMENT)
|   +-- RequestTooLarge      it exceeds a limit on its size
|   +-- UnknownModel         it names a model that the server does not have
+-- WrongTask                the model cannot perform the task (gRPC FAILED_PRECONDITION)
+-- QueueFull                the server has too much work (gRPC RESOURCE_EXHAUSTED)
+-- DeadlineExpired          the deadline passed before the request was computed
+-- NonFiniteValues          scores or vectors are NaN or infinite (gRPC DATA_LOSS)
+-- OutOfMemory              one text alone does not fit in memory (gRPC RESOURCE_EXHAUSTED)
+-- NotServing               no worker can serve, or the server shuts down (gRPC UNAVAILABLE)
+-- WorkerDied               the worker that computed the request failed or died (gRPC INTERNAL)
|   +-- ProcessDied          the worker process ended while it computed the request
|   +-- WorkerHung           a micro-batch took longer than pool.infer_timeout_s
+-- RequestFailed            the server refused or failed a request of a `Client`
+-- MeasuringFailed          `run` or `sweep` measured nothing
+-- TargetUnreachable        no server answers at the given address
+-- TargetDied               the server process failed or died before it was ready
+-- ResultError              a result file is missing, unreadable or has another schema version
+-- TrackingError            the experiment tracker cannot be reached or refused a write
+-- DashboardError           the dashboard did not start, or its screenshot failed
"""


class CrossbenchError(Exception):
    """Base class of all errors that a user can fix."""


class ConfigError(CrossbenchError):
    """A value, key or combination in the configuration cannot be used."""


class UnsupportedQuant(ConfigError):
    """The backend does not support the requested precision."""


class UnsupportedDevice(ConfigError):
    """The backend does not support this type of device on any machine."""


class BackendUnavailable(CrossbenchError):
    """This machine lacks a library or device that the backend needs."""


class ModelError(CrossbenchError):
    """A model folder is missing, incomplete or broken."""


class DatasetError(CrossbenchError):
    """A data set is missing, empty or malformed."""


class InvalidRequest(CrossbenchError):
    """The server rejects a malformed request."""


class RequestTooLarge(InvalidRequest):
    """A request, or one of its texts, is larger than a limit of the server."""


class UnknownModel(InvalidRequest):
    """A request names a model that the server does not have."""


class WrongTask(CrossbenchError):
    """The served model cannot perform the task, for example a cross-encoder cannot embed."""


class QueueFull(CrossbenchError):
    """The server has too much work to take the request. Send it again after `retry_after_s`."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineExpired(CrossbenchError):
    """The deadline passed before the request was computed."""


class NonFiniteValues(CrossbenchError):
    """Scores or vectors are NaN or infinite."""


class OutOfMemory(CrossbenchError):
    """One text alone does not fit in the memory of the worker."""


class NotServing(CrossbenchError):
    """No worker of the model can serve, or the server is shutting down."""


class WorkerDied(CrossbenchError):
    """The worker that computed the request failed or died."""


class ProcessDied(WorkerDied):
    """The worker process ended while it computed the request."""


class WorkerHung(WorkerDied):
    """A micro-batch took longer than `pool.infer_timeout_s`."""


class RequestFailed(CrossbenchError):
    """The server refused or failed a request of a `Client`, or did not answer in time.

    `status` is gRPC's status, such as `RESOURCE_EXHAUSTED`. A busy server says in `retry_after_s`
    when to try again.
    """

    def __init__(self, message: str, status: str, retry_after_s: float | None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s


class MeasuringFailed(CrossbenchError):
    """`run` or `sweep` measured nothing; the message is that of the command."""


class TargetUnreachable(CrossbenchError):
    """No server answers at the given address."""


class TargetDied(CrossbenchError):
    """The server process failed or died before it was ready."""


class ResultError(CrossbenchError):
    """A result file is missing, unreadable or has another schema version."""


class TrackingError(CrossbenchError):
    """The experiment tracker cannot be reached or refused a write."""


class DashboardError(CrossbenchError):
    """The dashboard did not start, or its screenshot failed."""
