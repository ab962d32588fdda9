"""The compared systems; each runs in its own process, so that it can have its own environment."""
