"""The exceptions a user can meet; each message says what was wrong, what was given, what to do.

CrossbenchError
+-- ConfigError              a value, key or combination in the configuration cannot be used
|   +-- UnsupportedQuant     the backend does not compute in that precision
|   +-- UnsupportedDevice    the backend has no path for that kind of device
+-- BackendUnavailable       a library or device that the backend needs is missing on this machine
+-- ModelError               a model folder is missing, incomplete or broken
+-- DatasetError             a data set is missing, empty or malformed
+-- InvalidRequest           a request that the server refuses (gRPC INVALID_ARGUMENT)
+-- WrongTask                the model served does not do what was asked (gRPC FAILED_PRECONDITION)
+-- QueueFull                the server holds as much work as it may (gRPC RESOURCE_EXHAUSTED)
+-- DeadlineExpired          a request's deadline passed before it was computed
+-- NonFiniteValues          scores or vectors are NaN or infinite (gRPC DATA_LOSS)
+-- WorkerDied               the worker that computed a request failed or died (gRPC INTERNAL)
+-- TargetUnreachable        no server answers at the address that was given
+-- TargetDied               the server's own process failed or died before it could serve
+-- ResultError              a result file is missing, unreadable or of another schema version
+-- TrackingError            the experiment tracker cannot be reached or refused a write
+-- DashboardError           the live page did not come up, or no picture of it could be taken
"""


class CrossbenchError(Exception):
    """Base of everything that crossbench raises for a user to mend."""


class ConfigError(CrossbenchError):
    """A value, key or combination in the configuration cannot be used."""


class UnsupportedQuant(ConfigError):
    """The backend does not compute in the precision that was asked for."""


class UnsupportedDevice(ConfigError):
    """The backend has no path for that kind of device, on any machine."""


class BackendUnavailable(CrossbenchError):
    """A library or device that the backend needs is missing on this machine."""


class ModelError(CrossbenchError):
    """A model folder is missing, incomplete or broken."""


class DatasetError(CrossbenchError):
    """A data set is missing, empty or malformed."""


class InvalidRequest(CrossbenchError):
    """A request that the server refuses."""


class WrongTask(CrossbenchError):
    """The model that is served does not do what was asked: a cross-encoder embeds nothing."""


class QueueFull(CrossbenchError):
    """The server holds as much waiting work as it may."""


class DeadlineExpired(CrossbenchError):
    """A request's deadline passed before it was computed."""


class NonFiniteValues(CrossbenchError):
    """Scores or vectors are NaN or infinite, so nothing can be computed from them."""


class WorkerDied(CrossbenchError):
    """The worker that computed a request failed or died."""


class TargetUnreachable(CrossbenchError):
    """No server answers at the address that was given."""


class TargetDied(CrossbenchError):
    """The server's own process failed or died before it could serve."""


class ResultError(CrossbenchError):
    """A result file is missing, unreadable or of another schema version."""


class TrackingError(CrossbenchError):
    """The experiment tracker cannot be reached or refused a write."""


class DashboardError(CrossbenchError):
    """The live page did not come up, or no picture of it could be taken."""
