"""CPUID of the machine's CPU: a Core Duo (Yonah) with what works here and nothing else.

Ref: Intel SDM vol. 2A, CPUID. Left out on purpose: APIC and x2APIC, ACPI, MCE and MCA, MTRR, VME,
DS, VMX, EST, TM, MONITOR, long mode. Both engines answer from this table, so a guest cannot tell them
apart by it.
"""

from __future__ import annotations

_VENDOR = (0x756E6547, 0x49656E69, 0x6C65746E)  # "Genu" "ineI" "ntel"
_SIGNATURE = 0x000006E8  # family 6, model 14, stepping 8
_BRAND = b"Genuine Intel(R) CPU           T2600  @ 1.00GHz\0"

# Leaf 1 EDX
FPU, DE, PSE, TSC, MSR, PAE, CX8 = 1 << 0, 1 << 2, 1 << 3, 1 << 4, 1 << 5, 1 << 6, 1 << 8
SEP, PGE, CMOV, CLFSH, MMX, FXSR, SSE, SSE2 = 1 << 11, 1 << 13, 1 << 15, 1 << 19, 1 << 23, 1 << 24, 1 << 25, 1 << 26
FEATURES_EDX = FPU | DE | PSE | TSC | MSR | PAE | CX8 | SEP | PGE | CMOV | CLFSH | MMX | FXSR | SSE | SSE2
FEATURES_ECX = 1 << 0  # SSE3
NX = 1 << 20  # leaf 0x80000001 EDX
MAX_LEAF, MAX_EXTENDED = 2, 0x80000008


def cpuid(leaf: int, subleaf: int) -> tuple[int, int, int, int]:
    """(EAX, EBX, ECX, EDX); an unknown leaf answers as the highest basic one, as Intel's do."""
    del subleaf  # no leaf here has any
    if leaf > MAX_LEAF and not 0x80000000 <= leaf <= MAX_EXTENDED:
        leaf = MAX_LEAF
    if leaf == 0:
        return MAX_LEAF, _VENDOR[0], _VENDOR[2], _VENDOR[1]
    if leaf == 1:
        return _SIGNATURE, 8 << 8, FEATURES_ECX, FEATURES_EDX  # EBX: CLFLUSH line of 64 bytes
    if leaf == 2:
        return 0x02B3B001, 0x000000F0, 0, 0x2C04307D  # descriptors of the T2600's TLBs and caches
    if leaf == 0x80000000:
        return MAX_EXTENDED, 0, 0, 0
    if leaf == 0x80000001:
        return 0, 0, 0, NX
    if 0x80000002 <= leaf <= 0x80000004:
        words = _BRAND[(leaf - 0x80000002) * 16 :][:16]
        a, b, c, d = (int.from_bytes(words[i : i + 4], "little") for i in range(0, 16, 4))
        return a, b, c, d
    if leaf == 0x80000006:
        return 0, 0, 0x08006040, 0  # 2 MB second-level cache, 8-way, 64-byte lines
    if leaf == 0x80000008:
        return 0x2020, 0, 0, 0  # 32 physical and virtual address bits
    return 0, 0, 0, 0
