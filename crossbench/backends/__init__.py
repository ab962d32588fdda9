"""The inference engines: the Backend protocol (base.py) and one file per engine."""
