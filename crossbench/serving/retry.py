"""When to send a refused request again, in the metadata that clients read."""

from __future__ import annotations

import math

from google.rpc import code_pb2, error_details_pb2, status_pb2

from crossbench.errors import CrossbenchError, QueueFull

Metadata = tuple[tuple[str, str | bytes], ...]


def retry_advice(error: CrossbenchError) -> Metadata:
    """Return the trailing metadata of an error: for QueueFull, after which time to try again.

    `grpc-status-details-bin` has a google.rpc.RetryInfo, which the library grpcio-status reads.
    gRPC's own retries obey `grpc-retry-pushback-ms` (gRFC A6).
    """
    if not isinstance(error, QueueFull):
        return ()
    info = error_details_pb2.RetryInfo()
    info.retry_delay.FromNanoseconds(int(error.retry_after_s * 1e9))
    status = status_pb2.Status(code=code_pb2.RESOURCE_EXHAUSTED, message=str(error))
    status.details.add().Pack(info)
    return (
        ("grpc-status-details-bin", status.SerializeToString()),
        ("grpc-retry-pushback-ms", str(math.ceil(error.retry_after_s * 1e3))),
    )
