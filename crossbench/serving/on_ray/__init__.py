"""The server as replicas of Ray Serve, behind its gRPC proxies."""
