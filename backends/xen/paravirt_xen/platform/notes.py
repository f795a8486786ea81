"""What a kernel asks of the domain builder: Xen's ELF notes, or the older string in the section __xen_guest.

Both are accepted as a real Xen accepts them, with its checks and its defaults, and refused with its reasons.

Ref: Xen public/elfnote.h, public/features.h; common/libelf/libelf-dominfo.c (checks and defaults).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from paravirt.api import ElfImage, ImageError, KernelInfo, xen_notes
from paravirt_xen.platform.layout import GDT_WINDOW, HYPERVISOR_START, M2P_PAGE, PAGE

# Names that a FEATURES note may hold, with their bits of XENVER_get_features.
FEATURE_BITS = {
    "writable_page_tables": 0, "writable_descriptor_tables": 1, "auto_translated_physmap": 2,
    "supervisor_mode_kernel": 3, "pae_pgdir_above_4gb": 4, "hvm_callback_vector": 8, "dom0": 11,
}  # fmt: skip
NAME_LIMIT, VALUE_LIMIT = 31, 127  # of one pair in __xen_guest; what is longer is cut


@dataclass(frozen=True)
class KernelNotes:
    """Addresses are virtual. A segment is loaded at its p_paddr - `paddr_offset` + `virt_base`.

    :ivar hypercall_page: filled by the builder; None: the kernel executes ``int 0x82`` itself.
    :ivar unmapped_module: the module may lie outside of the first mapping; mod_start is a pfn then.
    :ivar hypervisor_start: the hypervisor's part of every address space begins here.
    """

    virt_base: int
    entry: int
    paddr_offset: int
    hypercall_page: int | None
    unmapped_module: bool
    bsd_symtab: bool
    hypervisor_start: int
    guest_os: str

    def virtual(self, physical: int) -> int:
        """Where the builder puts what the file has at `physical`."""
        return physical - self.paddr_offset + self.virt_base


def is_xen_kernel(kernel: KernelInfo) -> bool:
    """Whether a kernel says anything to a domain builder."""
    return isinstance(kernel.image, ElfImage) and bool(xen_notes(kernel.image))


def parse_notes(image: ElfImage) -> KernelNotes:
    """:raises ImageError: a real Xen would not load this kernel either; the message says why."""
    notes = xen_notes(image)
    if not notes:
        raise ImageError(f"{image.path}: it has neither Xen notes nor a section __xen_guest")
    old = set(notes) == {"__xen_guest"}
    if old:
        notes = _guest_string(str(notes["__xen_guest"]))
    _check_kind(image, notes)
    base, offset = _number(image, notes, "VIRT_BASE"), _number(image, notes, "PADDR_OFFSET")
    if base is None and offset is not None:
        raise ImageError(f"{image.path}: note PADDR_OFFSET without VIRT_BASE")
    base = base or 0
    if offset is None:
        offset = base if old else 0
    entry = _number(image, notes, "ENTRY")
    found = KernelNotes(
        virt_base=base, entry=image.entry if entry is None else entry, paddr_offset=offset,
        hypercall_page=_number(image, notes, "HYPERCALL_PAGE"),
        unmapped_module=bool(_number(image, notes, "MOD_START_PFN")),
        bsd_symtab=notes.get("BSD_SYMTAB") == "yes" or (old and "BSD_SYMTAB" in notes),
        hypervisor_start=_hypervisor_start(image, notes), guest_os=str(notes.get("GUEST_OS", "")))
    _check_places(image, found, _number(image, notes, "INIT_P2M"))
    return found


def _check_kind(image: ElfImage, notes: Mapping[str, str | int]) -> None:
    loader, guest_os = str(notes.get("LOADER", "")), str(notes.get("GUEST_OS", ""))
    if not loader.startswith("generic") and not guest_os.startswith("linux"):
        raise ImageError(f"{image.path}: note LOADER is {loader!r} and GUEST_OS {guest_os!r}: Xen loads kernels for "
                         "the generic loader, or Linux")
    version = str(notes.get("XEN_VERSION", ""))
    if not version.startswith("xen-3.0"):
        raise ImageError(f"{image.path}: note XEN_VERSION is {version!r}, not 'xen-3.0'")
    for word in str(notes.get("FEATURES", "")).split("|"):
        if word.startswith("!") and word[1:] not in FEATURE_BITS:
            raise ImageError(f"{image.path}: note FEATURES requires {word[1:]!r}, which no Xen knows")


def _check_places(image: ElfImage, notes: KernelNotes, p2m_base: int | None) -> None:
    start, end = kernel_range(image, notes)
    if not notes.virt_base <= start <= end <= 1 << 32:
        raise ImageError(f"{image.path}: the kernel would lie at {start:#x} to {end:#x}, and VIRT_BASE is "
                         f"{notes.virt_base:#x}")
    if not start <= notes.entry <= end:
        raise ImageError(f"{image.path}: note ENTRY {notes.entry:#x} lies outside of the kernel")
    if notes.virt_base % PAGE:
        raise ImageError(f"{image.path}: note VIRT_BASE {notes.virt_base:#x} is not page aligned")
    page = notes.hypercall_page
    if page is not None and (page % PAGE or not start <= page < end):
        raise ImageError(f"{image.path}: note HYPERCALL_PAGE {page:#x} is no page of the kernel")
    if p2m_base is not None and start <= p2m_base < end:  # and no more: it is for 64-bit kernels
        raise ImageError(f"{image.path}: note INIT_P2M {p2m_base:#x} lies inside of the kernel")


def kernel_range(image: ElfImage, notes: KernelNotes) -> tuple[int, int]:
    """First and last address, as the kernel will be loaded."""
    return (notes.virtual(min(segment.paddr for segment in image.segments)), notes.virtual(image.physical_end))


def _number(image: ElfImage, notes: Mapping[str, str | int], name: str) -> int | None:
    value = notes.get(name)
    if value is None:
        return None
    if not isinstance(value, int):
        raise ImageError(f"{image.path}: note {name} is no number of 1, 2, 4 or 8 bytes")
    if value >> 32:
        raise ImageError(f"{image.path}: note {name} {value:#x} does not fit into 32 bits")
    return value


def _hypervisor_start(image: ElfImage, notes: Mapping[str, str | int]) -> int:
    """HV_START_LOW is the lowest address that the kernel leaves to the hypervisor."""
    low = _number(image, notes, "HV_START_LOW")
    if low is None or low <= HYPERVISOR_START:
        return HYPERVISOR_START
    start = (low + M2P_PAGE - 1) & ~(M2P_PAGE - 1)
    if start > GDT_WINDOW - 2 * M2P_PAGE:
        raise ImageError(f"{image.path}: note HV_START_LOW {low:#x} leaves the hypervisor too little")
    return start


def _guest_string(text: str) -> dict[str, str | int]:
    """NAME=VALUE pairs, as notes. HYPERCALL_PAGE is a page number from VIRT_BASE on."""
    renamed = {"VIRT_ENTRY": "ENTRY", "ELF_PADDR_OFFSET": "PADDR_OFFSET", "XEN_VER": "XEN_VERSION",
               "PAE": "PAE_MODE", "GUEST_VER": "GUEST_VERSION"}
    numbers = {"VIRT_BASE", "ENTRY", "PADDR_OFFSET", "HYPERCALL_PAGE"}
    found: dict[str, str | int] = {}
    for pair in text.split(","):
        name, _, value = pair.partition("=")
        name, value = renamed.get(name[:NAME_LIMIT], name[:NAME_LIMIT]), value[:VALUE_LIMIT]
        found[name] = _strtoull(value) if name in numbers else value
    page = found.get("HYPERCALL_PAGE")
    if isinstance(page, int):
        found["HYPERCALL_PAGE"] = page * PAGE + int(found.get("VIRT_BASE", 0))
    return found


def _strtoull(text: str) -> int:
    """As C's, base 0: 0x is hexadecimal, 0 octal; it ends at the first other character."""
    text = text.strip().lower()
    base, digits = (16, "0123456789abcdef") if text.startswith("0x") else (8, "01234567") if text.startswith("0") else (
        10, "0123456789")
    end = start = 2 if base == 16 else 0
    while end < len(text) and text[end] in digits:
        end += 1
    return int(text[start:end] or "0", base)
