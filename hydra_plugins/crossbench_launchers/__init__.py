"""Hydra finds crossbench's launchers here: it accepts plugins only from hydra_plugins."""
