"""What a hypercall answers when it does not do what it was asked.

Ref: Xen public/errno.h.
"""

from __future__ import annotations

EPERM, ENOENT, ESRCH, ENXIO, E2BIG, EBADF, EAGAIN, ENOMEM, EACCES, EFAULT = 1, 2, 3, 6, 7, 9, 11, 12, 13, 14
EBUSY, EEXIST, EXDEV, ENODEV, EINVAL, ENOSPC, ERANGE, EDEADLK, ENOSYS = 16, 17, 18, 19, 22, 28, 34, 35, 38
ETIME, EOPNOTSUPP = 62, 95


class HypercallError(Exception):
    """Raised by a handler; the guest gets ``-errno``.

    :param why: for a trace; the guest does not see it.
    """

    def __init__(self, errno: int, why: str = "") -> None:
        super().__init__(errno, why)
        self.errno, self.why = errno, why


class Preempted(Exception):
    """Raised by a handler that has done a part of its work: the guest calls again, by itself, with these arguments.

    No hypercall may keep the host for long, so one with a list does a bounded part of it at a time. Between two
    parts the CPU is back in the guest, at the ``int 0x82`` again: time passes and events come, as under Xen.

    :ivar arguments: the registers of the next call, as many words as the call's signature has.
    """

    def __init__(self, *arguments: int) -> None:
        super().__init__(arguments)
        self.arguments = arguments
