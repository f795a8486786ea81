"""Ops of machine_ops: how a machine stops, restarts and turns itself off.

Ref: Linux 2.6.23, include/asm-i386/reboot.h (struct machine_ops), arch/i386/kernel/reboot.c, kernel/sys.c,
kernel/panic.c, kernel/kexec.c.
"""

from __future__ import annotations

from paravirt.hookspecs._spec import op
from paravirt.hookspecs.types import GuestAddr, GuestStr


@op(table="machine_ops", prototype="void (*machine_restart)(char *cmd)")
def machine_restart(cmd: GuestStr) -> None:
    """Restart the machine.

    It does not return: the run ends with the outcome `reboot`. Called by sys_reboot when tasks and devices have
    been shut down.

    :param cmd: argument of LINUX_REBOOT_CMD_RESTART2, or NULL.
    """


@op(table="machine_ops", prototype="void (*machine_halt)(void)")
def machine_halt() -> None:
    """Stop the machine without turning it off.

    Afterwards the guest does nothing any more; the outcome is `halt`, or `poweroff` where the platform knows no
    halt. Called by sys_reboot.
    """


@op(table="machine_ops", prototype="void (*machine_power_off)(void)")
def machine_power_off() -> None:
    """Turn the machine off.

    It does not return: the run ends with the outcome `poweroff`. Called by sys_reboot.
    """


@op(
    table="machine_ops",
    prototype="void (*machine_shutdown)(void)",
    null="a kernel without kexec never calls it; machine_restart must not rely on it",
)
def machine_shutdown() -> None:
    """Quieten the machine for another kernel.

    Afterwards the other CPUs are stopped and the interrupt controllers are as the firmware left them. Called by
    kexec and by the native machine_restart.
    """


@op(
    table="machine_ops",
    prototype="void (*machine_crash_shutdown)(struct pt_regs *regs)",
    null="a kernel without kexec never calls it",
)
def machine_crash_shutdown(regs: GuestAddr) -> None:
    """Quieten a crashed machine for a dump kernel, or report the crash to the platform.

    Afterwards the other CPUs are stopped and nothing else was touched; where the platform takes the report, the
    run ends with the outcome `crash`. Called by panic through kexec.

    :param regs: the registers at the crash (struct pt_regs), or NULL.
    """


@op(table="machine_ops", prototype="void (*machine_emergency_restart)(void)")
def machine_emergency_restart() -> None:
    """Restart the machine at once.

    It takes no lock, syncs nothing and does not return. Called by panic with a timeout and by SysRq.
    """
