"""The batching gRPC server and its client."""
