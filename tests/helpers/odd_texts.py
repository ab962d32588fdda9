"""Texts that strangers send: unlikely but valid ones, and bytes that are not UTF-8."""

from __future__ import annotations

# Valid text. Each has at least one character that is not white space.
VALID = (
    "a", ".", "?!", "…", "---", "()[]{}", "0", "\u0000", "a\u0000b", "\u0001\u0002", "\u007f",
    "x\ty\nz\rw", "\u00a0x\u2003y\u3000z", "\ufeffbyte order mark", "\u200bzero\u200cwidth\u200d",
    "שלום עולם", "مرحبا بالعالم", "\u202eright to left override\u202c", "\u2066isolate\u2069",
    "e\u0301\u0302\u0303\u0304", "Z" + "\u0351\u0345\u0321" * 40, "ﬁ ﬂ Å Ω K", "İıŞş ß ẞ",
    "😀", "👩‍👩‍👧‍👦", "🏳️‍🌈 🇩🇪", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢", "水はどこへ流れる", "한국어", "ไม่มีช่องว่าง", "हिन्दी",
    "\ue000\uf8ff", "\ufffd", "\ufffe\uffff", "\U0010ffff", "\U000e0041\U000e0042",
    "[CLS] [SEP] [PAD] [MASK] [UNK]", "[SEP]" * 50, "<s></s><pad>",
    "##ing ##s", "\\x00 %s {0} ${jndi}",
    "'; DROP TABLE texts; --", "<script>alert(1)</script>", "../../etc/passwd", "NaN", "null",
    "x" * 99, "x" * 101, "qzx" * 700, "word " * 2000, "." * 5000, "é" * 3000, "水" * 3000,
)  # fmt: skip

# Refused: empty, or nothing but white space
EMPTY = (
    "", " ", "\t\n\r\v\f", "\u00a0", "\u2028\u2029", "\u3000" * 9, "\u0085",
    "\u001c\u001d\u001e\u001f",
)  # fmt: skip

# Not UTF-8
INVALID = (
    b"\xff", b"\xfe\xff\x00a", b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98", b"\x80", b"ok \xc0\xaf",
    b"\xed\xa0\x80", b"\xed\xb0\x80", b"\xed\xa0\xbd\xed\xb8\x80", b"\xf4\x90\x80\x80",
    b"\xf8\x88\x80\x80\x80",
    b"\xc1\x81", b"latin-1: \xe9t\xe9", b"a" * 5000 + b"\xff", b"\xff" * 3000,
)  # fmt: skip
