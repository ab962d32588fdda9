"""What this machine's CPU can compute natively, by the names that users know."""

from __future__ import annotations

from crossbench.backends.availability import Missing
from crossbench.measure.cpu import cpu_flags, is_intel

# Linux's names: x86 in the left set, Arm in the right.
_BF16 = {"avx512_bf16", "amx_bf16"} | {"bf16"}
_INT8_DOT = {"avx512_vnni", "avx_vnni", "amx_int8"} | {"asimddp", "i8mm"}


def has_bf16() -> bool:
    """Whether matrix products in bfloat16 run natively."""
    return bool(cpu_flags() & _BF16)


def has_int8_dot() -> bool:
    """Whether four u8 by s8 products add into 32 bits in one step, without saturating."""
    return bool(cpu_flags() & _INT8_DOT)


def mkl_knows_cpu() -> bool:
    """Whether MKL uses all of the CPU: with AVX-512 of other makes than Intel it does not."""
    return "avx512f" not in cpu_flags() or is_intel()


def missing_bf16() -> Missing | None:
    """What a CPU lacks that would emulate bfloat16, which is slower than fp32; else None."""
    if has_bf16():
        return None
    return Missing(
        "this CPU has no bf16 (AVX512_BF16 or AMX; on Arm BF16) and emulates it, slower than fp32",
        "give quant=fp32 here; AMD Zen 4, Intel Cooper Lake or Sapphire Rapids, Arm v8.6 have it",
    )
