"""How scores are computed: the Backend protocol (base.py) and one file per engine."""
