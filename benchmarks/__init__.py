"""Benchmarks that print ratios; `python -m benchmarks.NAME --help` tells each one's question."""
