"""Benchmarks that compare alternatives; `python -m benchmarks.NAME --help` describes each one."""
