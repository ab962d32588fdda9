"""The live page: a process of its own, a client of the server's metrics and of the journal."""
