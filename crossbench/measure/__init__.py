"""Pure functions from request records to numbers, and probes of memory, CPU and machine."""
