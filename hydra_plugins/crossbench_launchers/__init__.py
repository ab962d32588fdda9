"""Hydra finds crossbench's launchers here: it accepts plugins only from the package hydra_plugins."""
