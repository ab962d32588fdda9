"""Hydra finds crossbench's sweeper here: it accepts plugins only from the package hydra_plugins."""
