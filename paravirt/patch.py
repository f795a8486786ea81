"""Call sites: an indirect call through the op table becomes the op's own code, or a direct call.

A site may be replaced by guest code only if that is no longer than the site and changes no register that the
site does not give up (the clobber contract): a site that saves ECX and EDX itself around the call may hold
code that changes EAX alone, and so on. Otherwise a site that gives up what the code changes, or all three
registers, becomes a direct call, a jump a direct jump, and the rest stays as it is.

Ref: Linux 2.6.23 arch/i386/kernel/paravirt.c, alternative.c; Intel SDM vol. 2B, NOP (recommended multi-byte
sequences), CALL, JMP.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from paravirt.binding import NULL_SLOT, Slot
from paravirt.forms import CLOBBER_ANY
from paravirt.hookspecs.tables import TABLES

if TYPE_CHECKING:
    from paravirt.kernel import Kernel
    from paravirt.ops import Ops

UD2 = b"\x0f\x0b"
CALL, JMP = 0xE8, 0xE9
NEAR_BYTES = 5
_NOPS = {
    1: "90", 2: "66 90", 3: "0f 1f 00", 4: "0f 1f 40 00", 5: "0f 1f 44 00 00", 6: "66 0f 1f 44 00 00",
    7: "0f 1f 80 00 00 00 00", 8: "0f 1f 84 00 00 00 00 00", 9: "66 0f 1f 84 00 00 00 00 00",
}


def nops(length: int) -> bytes:
    """`length` bytes that do nothing, in as few instructions as possible."""
    longest = bytes.fromhex(_NOPS[9])
    return longest * (length // 9) + (bytes.fromhex(_NOPS[length % 9]) if length % 9 else b"")


def generate(slots: Mapping[str, Slot], site_type: int, clobbers: int, address: int, length: int) -> bytes | None:
    """Code for the call site of slot number `site_type`; None: leave the site as it is.

    :param clobbers: what the site gives up: EAX 1, ECX 2, EDX 4.
    :param address: virtual address of the site; :param length: its bytes.
    """
    slot = slots.get(TABLES["paravirt_ops"].words[site_type])
    if slot is None:
        return None
    if slot.kind == NULL_SLOT:
        return UD2 if length >= len(UD2) else None
    if slot.wrapped:
        return None  # the wrappers are behind the table's word
    fits = slot.inline is not None and len(slot.inline) <= length and not slot.clobbers & ~clobbers
    if fits and not slot.through_gate:
        return slot.inline
    keeps = not slot.through_gate and not slot.clobbers & ~clobbers
    if length < NEAR_BYTES or not (slot.info.jumped or keeps or clobbers & CLOBBER_ANY == CLOBBER_ANY):
        return None
    opcode = JMP if slot.info.jumped else CALL
    return bytes([opcode]) + ((slot.address - address - NEAR_BYTES) & 0xFFFFFFFF).to_bytes(4, "little")


def patch_sites(ops: Ops, kernel: Kernel) -> int:
    """Have every recorded call site patched, as check_bugs does: the backend's op `patch` fills a buffer that
    begins as a copy of the site, the rest becomes NOPs. Returns how many sites changed."""
    if not kernel.replace_paravirt:
        return 0
    changed = 0
    with ops.step("patch", "call sites"):
        flags = ops.save_fl()
        ops.irq_disable()
        for site in kernel.call_sites:
            original = kernel.read(site.address, site.length)
            kernel.write(kernel.note.scratch, original)
            used = ops.patch(site.type, site.clobbers, kernel.note.scratch, site.address, site.length)
            if 0 <= used < site.length or kernel.read(kernel.note.scratch, site.length) != original:
                used = min(used, site.length)
                code = kernel.read(kernel.note.scratch, used) + nops(site.length - used)
                kernel.patch_text(site, code)
                changed += 1
        ops.patched = True
        ops.restore_fl(flags)
    return changed
