"""One domain: its frames, its memory as the hypervisor reaches it, and what the modules of the hypervisor share.

A machine address is a physical address of the CPU, and the guest's own page tables are what the CPU walks. So
guest memory is reached by walking them too, as ring 1 does: everything that is mapped may be read, nothing that is
mapped read-only may be written. What the guest passes may point anywhere: `HypercallError` EFAULT.

Ref: Intel SDM vol. 3A, 4.4 (PAE paging); Xen public/xen.h (start of day).
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn
from uuid import UUID

from paravirt.api import End, Guest, GuestExit, Outcome, layout
from paravirt_xen.platform.errors import EFAULT, ENOMEM, HypercallError
from paravirt_xen.platform.layout import HEAP_END, HEAP_FIRST, M2P_MACHINE, PAGE

if TYPE_CHECKING:
    from paravirt_xen.platform.clock import GuestClock
    from paravirt_xen.platform.console import ConsoleRing
    from paravirt_xen.platform.events import Events
    from paravirt_xen.platform.frames import Frames
    from paravirt_xen.platform.grants import Grants
    from paravirt_xen.platform.hole import Hole
    from paravirt_xen.platform.hypercalls import Dispatcher
    from paravirt_xen.platform.ldt import Ldt
    from paravirt_xen.platform.pool import Pool
    from paravirt_xen.platform.sched import Scheduler
    from paravirt_xen.platform.storering import StoreRing
    from paravirt_xen.platform.timers import Timers
    from paravirt_xen.platform.traps import Traps

HANDLE = UUID("b5a6d1a0-0000-4000-8000-000000000001")
PRESENT, WRITABLE, ACCESSED, DIRTY, LARGE = 1, 2, 0x20, 0x40, 0x80
FRAME = 0x0000_000F_FFFF_F000
CR3 = layout.CR + 3


class Domain:
    """
    :param p2m: pfn -> mfn at the start. The guest keeps a list of its own, which may differ later.
    :ivar shared_mfn: frame of shared_info. The hypervisor's frames are outside of `p2m`.
    :ivar vcpu_info: machine address of the vcpu's vcpu_info: in shared_info, until the guest moves it.
    :ivar handle: what tells domains apart for good.
    """

    dispatcher: Dispatcher
    frames: Frames
    traps: Traps
    events: Events
    timers: Timers
    clock: GuestClock
    sched: Scheduler
    store: StoreRing
    console: ConsoleRing
    hole: Hole
    ldt: Ldt
    store_mfn: int
    console_mfn: int
    l3_mfn: int  # the page table in use, of three levels
    pool: Pool
    grants: Grants

    def __init__(self, guest: Guest, p2m: array[int]) -> None:
        self.guest, self.machine = guest, guest.machine
        self.vcpu, self.ram = guest.machine.vcpu, guest.machine.ram
        self.counts = guest.counts
        self.p2m, self.nr_pages = p2m, len(p2m)
        self.machine_frames = self.ram.size // PAGE
        table = array("I", b"\xff" * (4 * self.machine_frames))
        for pfn, mfn in enumerate(p2m):
            table[mfn] = pfn
        self.ram.write(M2P_MACHINE, table.tobytes())
        self._heap = HEAP_FIRST
        self.shared_mfn = self.hypervisor_frame()
        self.shared = self.shared_mfn * PAGE
        self.vcpu_info = self.shared
        self.on_vcpu_info: Callable[[int], None] = lambda address: None
        self.handle = HANDLE
        self.vm_assist = 0
        self.e820 = b""  # what the domain has set as its memory map
        self._quads = self.vcpu.state.quads

    # ------------------------------------------------------------------ the hypervisor's own memory

    def hypervisor_frame(self) -> int:
        """A zeroed frame of the hypervisor's; it is never given back.

        :raises HypercallError: ENOMEM; what a guest can ask for has limits below that.
        """
        if self._heap == HEAP_END:
            raise HypercallError(ENOMEM, "the hypervisor's memory is used up")
        self._heap += 1
        return self._heap - 1

    @property
    def m2p(self) -> memoryview:
        """mfn -> pfn, the table that the guest reads; `set_m2p` writes it."""
        return self.ram.words[M2P_MACHINE // 4 : M2P_MACHINE // 4 + self.machine_frames]

    def set_m2p(self, mfn: int, pfn: int) -> None:
        self.ram.write_u32(M2P_MACHINE + 4 * mfn, pfn)

    def shared_u32(self, offset: int) -> int:
        return self.ram.words[self.shared + offset >> 2]

    def set_shared_u32(self, offset: int, value: int) -> None:
        self.ram.write_u32(self.shared + offset, value)

    def shared_u8(self, offset: int) -> int:
        return self.ram.bytes[self.shared + offset]

    def set_shared_u8(self, offset: int, value: int) -> None:
        self.ram.write(self.shared + offset, bytes((value,)))

    def move_vcpu_info(self, address: int) -> None:
        """The vcpu_info is at another machine address now, once and for all."""
        self.vcpu_info = address
        self.on_vcpu_info(address)

    # ------------------------------------------------------------------ the guest's memory

    def machine_address(self, va: int, need: int = PRESENT) -> int:
        """Machine address of a byte as ring 1 sees it; the accessed and dirty flags are set as the CPU would.

        :param need: flags that the entries of the last two levels must have, PRESENT or PRESENT | WRITABLE.
        :raises HypercallError: EFAULT.
        """
        quads = self.ram.quads
        try:
            entry = quads[((self._quads[CR3] & 0xFFFFFFE0) >> 3) + (va >> 30)]
            if entry & PRESENT:
                at = ((entry & FRAME) >> 3) + (va >> 21 & 511)
                entry = quads[at]
                if entry & need == need:
                    if entry & LARGE:
                        return entry & 0xF_FFE0_0000 | va & 0x1FFFFF
                    if not entry & ACCESSED:
                        self.ram.write_u64(8 * at, entry | ACCESSED)
                    at = ((entry & FRAME) >> 3) + (va >> 12 & 511)
                    entry = quads[at]
                    if entry & need == need:
                        touched = ACCESSED | DIRTY if need & WRITABLE else ACCESSED
                        if entry & touched != touched:
                            self.ram.write_u64(8 * at, entry | touched)
                        return entry & FRAME | va & 4095
        except IndexError:  # a table outside of memory
            pass
        raise HypercallError(EFAULT, f"{va:#x} is not mapped for that")

    def l1_entry_address(self, va: int) -> int | None:
        """Machine address of the L1 entry that maps `va`; None if there is no L1 table."""
        quads = self.ram.quads
        try:
            entry = quads[((self._quads[CR3] & 0xFFFFFFE0) >> 3) + (va >> 30)]
            if entry & PRESENT:
                entry = quads[((entry & FRAME) >> 3) + (va >> 21 & 511)]
                if entry & (PRESENT | LARGE) == PRESENT and entry & FRAME < self.ram.size:
                    return int((entry & FRAME) + 8 * (va >> 12 & 511))
        except IndexError:
            pass
        return None

    def read(self, va: int, size: int) -> bytes:
        """`size` bytes of the guest kernel's memory; :raises HypercallError: EFAULT, and nothing is returned."""
        offset = va & 4095
        if offset + size <= PAGE:
            at = self.machine_address(va)
            return self._inside(at, size)
        if va + size > 1 << 32:
            raise HypercallError(EFAULT, f"{size} bytes at {va:#x} wrap")
        parts = []
        while size:
            span = min(size, PAGE - (va & 4095))
            parts.append(self._inside(self.machine_address(va), span))
            va, size = va + span, size - span
        return b"".join(parts)

    def _inside(self, at: int, size: int) -> bytes:
        if at + size > self.ram.size:
            raise HypercallError(EFAULT, f"machine address {at:#x} is no memory")
        return bytes(self.ram.bytes[at : at + size])

    def write(self, va: int, data: bytes) -> None:
        """Store `data`; :raises HypercallError: EFAULT, and nothing is stored."""
        if va + len(data) > 1 << 32:
            raise HypercallError(EFAULT, f"{len(data)} bytes at {va:#x} wrap")
        pieces = []
        start = 0
        while start < len(data):
            span = min(len(data) - start, PAGE - (va & 4095))
            at = self.machine_address(va, PRESENT | WRITABLE)
            if at + span > self.ram.size:
                raise HypercallError(EFAULT, f"machine address {at:#x} is no memory")
            pieces.append((at, data[start : start + span]))
            va, start = va + span, start + span
        for at, piece in pieces:
            self.ram.write(at, piece)

    def read_u32(self, va: int) -> int:
        if va & 3:
            return int.from_bytes(self.read(va, 4), "little")
        at = self.machine_address(va)
        if at >= self.ram.size:
            raise HypercallError(EFAULT, f"machine address {at:#x} is no memory")
        return self.ram.words[at >> 2]

    def write_u32(self, va: int, value: int) -> None:
        self.write(va, (value & 0xFFFFFFFF).to_bytes(4, "little"))

    # ------------------------------------------------------------------ the end

    def crash(self, sentence: str) -> NoReturn:
        """The guest did what no domain survives."""
        eip = self.vcpu.eip
        raise GuestExit(Outcome(End.CRASH, sentence, eip, self.machine.symbolize(eip)))

    def assist(self, kind: int) -> bool:
        """Whether vm_assist has switched `kind` (abi.VMASST_*) on."""
        return bool(self.vm_assist >> kind & 1)
