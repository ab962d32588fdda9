"""The dashboard: a separate process that shows the server's metrics and the journal's events."""
