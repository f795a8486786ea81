"""The domain builder: a kernel's notes become a domain with its first mapping, start_info and registers.

Behind the kernel lie, page aligned: the module, the list of frames, start_info, the pages of xenstore and console,
the page tables, the boot stack. All of it is mapped from VIRT_BASE on, up to a 4 MiB boundary with at least 512 KiB
to spare.

Ref: Xen public/xen.h (start of day memory layout); tools/libs/guest/xg_dom_core.c, xg_dom_x86.c; values as seen
on a 4.17.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from struct import pack

from paravirt.api import ElfImage, Guest, ImageError
from paravirt_xen.platform import abi
from paravirt_xen.platform.domain import Domain
from paravirt_xen.platform.hole import Hole
from paravirt_xen.platform.layout import CHUNK, M2P_MACHINE, M2P_PAGE, PAGE, SPARE_MEMORY
from paravirt_xen.platform.notes import KernelNotes, kernel_range, parse_notes
from paravirt_xen.platform.symtab import bsd_symbols

L1_PAGE, L1_TABLE, L2_TABLE, L3_TABLE = 0x23, 0x21, 0x67, 0x01
SPARE = 512 << 10
BOUNDARY = 4 << 20
HYPERCALLS = 128
HYPERCALL_BYTES = 32
IRET = 23
STORE_PORT, CONSOLE_PORT = 1, 2


def reserved_memory(memory: int) -> int:
    """Bytes of machine memory beside the domain's `memory`: the heap, the machine-to-phys table, spare frames."""
    table = 0
    while table * (M2P_PAGE // 4) * PAGE < M2P_MACHINE + table * M2P_PAGE + SPARE_MEMORY + memory:
        table += 1
    return M2P_MACHINE + table * M2P_PAGE + SPARE_MEMORY


def machine_frames(memory: int) -> array[int]:
    """The domain's frames, in the order of its pfns: neither pfns nor one run, and the same every time."""
    first, count = reserved_memory(memory) // PAGE, memory // PAGE
    chunks = -(-count // CHUNK)
    step = max(1, chunks * 5 // 8) | 1
    while chunks > 1 and _common(step, chunks) > 1:
        step += 2
    frames = array("I")
    for number in range(chunks):
        start = (chunks - 1 + number * step) % chunks * CHUNK
        frames.extend(range(first + start, first + min(start + CHUNK, count)))
    return frames


def _common(a: int, b: int) -> int:
    while b:
        a, b = b, a % b
    return a


@dataclass(frozen=True)
class Plan:
    """Virtual addresses of what lies behind the kernel; `end` is where the first mapping ends.

    :ivar module: mod_start and mod_len of start_info. :ivar module_pfn: where it lies.
    """

    module: tuple[int, int]
    module_pfn: int
    mfn_list: int
    start_info: int
    store: int
    console: int
    tables: int
    nr_tables: int
    stack: int
    end: int


def plan_layout(notes: KernelNotes, kernel_end: int, module: int, nr_pages: int) -> Plan:
    """:param module: its bytes, 0 for none."""
    at = _up(kernel_end)
    module_at = at
    if not notes.unmapped_module:
        at = _up(at + module)
    mfn_list = at
    at = _up(at + 4 * nr_pages)
    start_info, store, console, tables = at, at + PAGE, at + 2 * PAGE, at + 3 * PAGE
    nr_tables = 0
    while True:
        end = _up(tables + nr_tables * PAGE + PAGE + SPARE + 1, BOUNDARY)
        needed = 1 + len(_l2_slots(notes.virt_base)) + (end >> 21) - (notes.virt_base >> 21)
        if needed <= nr_tables:
            break
        nr_tables = needed
    if notes.unmapped_module:
        module_at = end
    pfn = module_at - notes.virt_base >> 12
    start = pfn if notes.unmapped_module else module_at
    return Plan((start, module) if module else (0, 0), pfn, mfn_list, start_info, store, console, tables, nr_tables,
                tables + nr_tables * PAGE, end)


def _l2_slots(base: int) -> range:
    """Slots of the L3 that get an L2 table; the top one always does, the hypervisor is there."""
    return range(base >> 30, 4)


def _up(address: int, boundary: int = PAGE) -> int:
    return (address + boundary - 1) & ~(boundary - 1)


class Builder:
    """Builds one domain."""

    def __init__(self, guest: Guest) -> None:
        image = guest.kernel.image
        if not isinstance(image, ElfImage):
            raise ImageError(f"{image.path}: no ELF file; the domain builder wants an ELF kernel")
        self.guest, self.image = guest, image
        self.notes = parse_notes(image)
        _, self.kernel_end = kernel_range(image, self.notes)
        self.symbols = bsd_symbols(image.data) if self.notes.bsd_symtab else b""
        if self.symbols:
            self.kernel_end = _up(self.kernel_end, 4) + len(self.symbols)
        self.domain = Domain(guest, machine_frames(guest.memory))
        module = guest.initrd or b""
        self.plan = plan_layout(self.notes, self.kernel_end, len(module), self.domain.nr_pages)
        room = self.plan.end - self.notes.virt_base
        if self.notes.unmapped_module:
            room += len(module)
        if room > guest.memory or self.plan.end > self.notes.hypervisor_start:
            raise ImageError(f"{image.path}: kernel, module and first page tables need {room >> 10} KiB, and the "
                             f"domain has {guest.memory >> 10} KiB")
        self.hole = self.domain.hole = Hole(self.domain, self.notes.hypervisor_start)

    def build(self) -> Domain:
        """Fill the domain's memory. The registers are `start`'s."""
        domain, plan, notes = self.domain, self.plan, self.notes
        for segment in self.image.segments:
            self._put(notes.virtual(segment.paddr), segment.data)
        self._put(self.kernel_end - len(self.symbols), self.symbols)
        if notes.hypercall_page is not None:
            self._put(notes.hypercall_page, hypercall_page())
        if self.guest.initrd:
            self._put(notes.virt_base + plan.module_pfn * PAGE, self.guest.initrd)
        self._put(plan.mfn_list, domain.p2m.tobytes())
        domain.store_mfn, domain.console_mfn = self._mfn(plan.store), self._mfn(plan.console)
        self._put(plan.start_info, self._start_info())
        self._page_tables()
        return domain

    def _mfn(self, va: int) -> int:
        return self.domain.p2m[va - self.notes.virt_base >> 12]

    def _put(self, va: int, data: bytes) -> None:
        at = 0
        while at < len(data):
            span = min(len(data) - at, PAGE - (va & 4095))
            self.domain.ram.write(self._mfn(va) * PAGE + (va & 4095), data[at : at + span])
            at, va = at + span, va + span

    def _start_info(self) -> bytes:
        domain, plan = self.domain, self.plan
        command_line = self.guest.command_line.encode("utf-8", "surrogateescape")[: abi.CMD_LINE_BYTES - 1]
        words = abi.START_INFO.pack(
            abi.START_INFO_MAGIC, domain.nr_pages, domain.shared,
            abi.SIF_MOD_START_PFN if self.notes.unmapped_module else 0, domain.store_mfn, STORE_PORT,
            domain.console_mfn, CONSOLE_PORT, plan.tables, plan.nr_tables, plan.mfn_list, *plan.module)
        return words + command_line.ljust(abi.CMD_LINE_BYTES, b"\0")

    def _page_tables(self) -> None:
        """L3, the L2s, then the L1s; the tables themselves are mapped read-only."""
        domain, plan, base = self.domain, self.plan, self.notes.virt_base
        tables = [self._mfn(plan.tables + PAGE * number) for number in range(plan.nr_tables)]
        slots = _l2_slots(base)
        l3, l2s, l1s = tables[0], dict(zip(slots, tables[1:], strict=False)), tables[1 + len(slots) :]
        for slot, l2 in l2s.items():
            domain.ram.write_u64(l3 * PAGE + 8 * slot, l2 * PAGE | L3_TABLE)
        first = base >> 21
        for number, l1 in enumerate(l1s):
            region = first + number
            domain.ram.write_u64(l2s[region >> 9] * PAGE + 8 * (region & 511), l1 * PAGE | L2_TABLE)
            domain.ram.write(l1 * PAGE, self._l1(region << 21))
        self.hole.install(l2s[3])
        domain.l3_mfn = l3

    def _l1(self, start: int) -> bytes:
        entries = []
        for va in range(start, start + (512 * PAGE), PAGE):
            if not self.notes.virt_base <= va < self.plan.end:
                entries.append(0)
                continue
            table = self.plan.tables <= va < self.plan.tables + PAGE * self.plan.nr_tables
            entries.append(self._mfn(va) * PAGE | (L1_TABLE if table else L1_PAGE))
        return pack("<512Q", *entries)


def hypercall_page() -> bytes:
    """``mov $n, %eax; int $0x82; ret`` in slot n; that of iret keeps EAX on the stack and does not return."""
    page = bytearray()
    for number in range(HYPERCALLS):
        code = b"\xb8" + number.to_bytes(4, "little") + b"\xcd\x82"
        page += (b"\x50" + code if number == IRET else code + b"\xc3").ljust(HYPERCALL_BYTES, b"\xcc")
    return bytes(page)
