"""Pairs of different kinds: short, long, very long, non-ASCII, unusual."""

from __future__ import annotations

from crossbench.types import Pair

LONG = "water runs down the river and the city takes what it needs from it every single day "

PAIRS = [
    Pair("what is a river", "A river is water that runs."),
    Pair("what is a river", LONG * 8),
    Pair("what is a river", LONG * 120),  # far more tokens than a model has positions
    Pair(LONG * 60, LONG * 60),
    Pair(LONG * 120, "short"),
    Pair("où coule l'eau", "L'été, la rivière coule à travers la forêt – 30 °C à midi."),
    Pair("水はどこへ", "川は海へ流れる。😀"),
    Pair("a", "b"),
    Pair("  spaces  and\ttabs\n", "UPPER lower (punctuation!?) under_score e-mail@example.org"),
]
