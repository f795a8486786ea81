"""Debug registers: what a guest may put into them. What it does is the CPU's.

Ref: Xen arch/x86/traps.c (set_debugreg, do_get_debugreg); Intel SDM vol. 3B, 17.2.
"""

from __future__ import annotations

from paravirt_xen.platform.domain import Domain
from paravirt_xen.platform.errors import ENODEV, EPERM, HypercallError

CR4_DE = 8
STATUS_ONES, STATUS_ZEROS = 0xFFFF0FF0, 0x1000
CONTROL_ONE, GENERAL_DETECT = 0x400, 0x2000
CONTROL_ZEROS = 0xD800
ACTIVE = 0xFF
BREAK_ON_IO = 2


def get_debugreg(domain: Domain, register: int) -> int:
    """The value of a register; :raises HypercallError: ENODEV."""
    if register in (4, 5):
        if domain.traps.cr4 & CR4_DE:
            raise HypercallError(ENODEV, "DR4 and DR5 are not there with CR4.DE")
        register += 2
    if register > 7:
        raise HypercallError(ENODEV, f"debug register {register}")
    return domain.vcpu.debug_register(register)


def set_debugreg(domain: Domain, register: int, value: int) -> int:
    """:raises HypercallError: ENODEV for a register that is not there, EPERM for a value that a guest may not have."""
    extensions = bool(domain.traps.cr4 & CR4_DE)
    if register in (4, 5) and not extensions:
        register += 2
    if register == 6:
        value = value & ~STATUS_ZEROS | STATUS_ONES
    elif register == 7:
        if value & GENERAL_DETECT:
            raise HypercallError(EPERM, "DR7.GD")
        value = value & ~CONTROL_ZEROS | CONTROL_ONE
        kinds = (value >> shift & 3 for shift in range(16, 32, 4))
        if value & ACTIVE and not extensions and BREAK_ON_IO in kinds:
            raise HypercallError(EPERM, "a break point on I/O without CR4.DE")
    elif register > 3:
        raise HypercallError(ENODEV, f"debug register {register}")
    domain.vcpu.set_debug_register(register, value)
    return 0
