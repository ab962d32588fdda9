"""What runs in Ray's proxies: our RPCs, whose bytes they pass on to the replicas unread."""

from __future__ import annotations

import logging
import os

import grpc

from crossbench.serving.on_ray.roster import NAMESPACE, ROSTER
from crossbench.serving.rpcs import SERVICE_NAME, rpc_handlers

log = logging.getLogger(__name__)


def add_rpcs(servicer: object, server: grpc.aio.Server) -> None:
    """Register the RPCs with a proxy of Ray Serve, which calls this when it starts.

    Unlike those of the generated code, these handlers do not decode messages. The proxy would only
    encode them again.
    """
    import ray

    handlers = rpc_handlers(servicer)
    # The first call is for the reflection service, which lists what was added so
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE_NAME, handlers),))
    server.add_registered_method_handlers(SERVICE_NAME, handlers)

    try:
        roster = ray.get_actor(ROSTER, namespace=NAMESPACE)
    except ValueError as error:  # a proxy that starts again when the deploying process is gone
        log.warning("this proxy's CPU time will not be counted: %s", error)
        return
    roster.add_proxy.remote(ray.util.get_node_ip_address(), os.getpid())
