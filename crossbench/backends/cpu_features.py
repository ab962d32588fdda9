"""Features of this machine's CPU that matter for low-precision arithmetic."""

from __future__ import annotations

from crossbench.backends.availability import Missing
from crossbench.measure.cpu import cpu_flags, is_intel

# Flags as Linux names them: x86 in the left set, Arm in the right
_BF16 = {"avx512_bf16", "amx_bf16"} | {"bf16"}
_INT8_DOT = {"avx512_vnni", "avx_vnni", "amx_int8"} | {"asimddp", "i8mm"}


def has_bf16() -> bool:
    """Whether the CPU has bfloat16 matrix instructions."""
    return bool(cpu_flags() & _BF16)


def has_int8_dot() -> bool:
    """Whether the CPU accumulates u8 x s8 products in 32 bits in one instruction (e.g. VNNI).

    Without it, products are accumulated in 16 bits, which can saturate.
    """
    return bool(cpu_flags() & _INT8_DOT)


def mkl_supports_cpu() -> bool:
    """Whether MKL is optimised for this CPU; it does not use AVX-512 on CPUs by other makers."""
    return "avx512f" not in cpu_flags() or is_intel()


def missing_bf16() -> Missing | None:
    """Return Missing if the CPU would emulate bfloat16, which is slower than fp32; else None."""
    if has_bf16():
        return None
    return Missing(
        "this CPU has no bf16 instructions (AVX512_BF16 or AMX; BF16 on Arm), and emulating bf16 "
        "is slower than fp32",
        "give quant=fp32, or use a CPU with bf16 (AMD Zen 4, Intel Cooper Lake or Sapphire Rapids, "
        "Arm v8.6, or newer)",
    )
