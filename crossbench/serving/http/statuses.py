"""What HTTP says beside a body: an error's status, when to try again, the client's deadline."""

from __future__ import annotations

import contextlib
import math

from crossbench.errors import (
    CrossbenchError,
    DeadlineExpired,
    InvalidRequest,
    NotServing,
    OutOfMemory,
    QueueFull,
    RequestTooLarge,
    UnknownModel,
    WrongTask,
)
from crossbench.serving.http.bodies import Headers, header
from crossbench.serving.http.work import Form

DEADLINE = b"x-request-timeout-ms"


def http_status(error: CrossbenchError, form: Form | None) -> int:
    """Return the status of an error."""
    match error:
        case RequestTooLarge() | OutOfMemory():
            return 413
        case UnknownModel():
            return 404
        case InvalidRequest():
            return 400
        case WrongTask():
            return 400 if form is None else form.wrong_task
        case QueueFull():
            return 429
        case NotServing():
            return 503
        case DeadlineExpired():
            return 504
        case _:
            return 500


def retry_after(error: CrossbenchError) -> Headers:
    """Return when to send a refused request again, in whole seconds as HTTP has it."""
    if isinstance(error, QueueFull):
        return [
            (b"retry-after", str(math.ceil(error.retry_after_s)).encode()),
            (b"retry-after-ms", str(math.ceil(error.retry_after_s * 1e3)).encode()),
        ]
    return [(b"retry-after", b"1")] if isinstance(error, NotServing) else []


def deadline_of(headers: Headers) -> float | None:
    """Return how many seconds the client waits for an answer, None if it does not say.

    Raises:
        InvalidRequest: it is no number above 0.
    """
    given = header(headers, DEADLINE)
    if not given:
        return None
    with contextlib.suppress(ValueError):
        milliseconds = float(given)
        if 0 < milliseconds < math.inf:
            return milliseconds / 1e3
    raise InvalidRequest(
        f"the header {DEADLINE.decode()} is {given[:40]!r}: send a number of milliseconds above 0"
    )
