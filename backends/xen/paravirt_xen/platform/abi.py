"""The public ABI, as literal constants and offsets. Little-endian, 32-bit, natural alignment of x86_32 (u64: 4).

Ref: Xen public/xen.h, arch-x86/xen.h, arch-x86/xen-x86_32.h, callback.h, version.h.
"""

from __future__ import annotations

import struct

DOMID_SELF, DOMID_IO, DOMID_XEN = 0x7FF0, 0x7FF1, 0x7FF2
DOMAIN_ID = 1  # what xenstore and grants call this domain

XEN_VERSION = 0x00040011
HYPERCALL_VECTOR = 0x82

# start_info, one page
START_INFO_MAGIC = b"xen-3.0-x86_32p"
# magic, nr_pages, shared_info, flags, store_mfn, store_evtchn, console mfn, console evtchn, pt_base, nr_pt_frames,
# mfn_list, mod_start, mod_len; then char cmd_line[1024], first_p2m_pfn, nr_p2m_frames
START_INFO = struct.Struct("<32s12I")
CMD_LINE, CMD_LINE_BYTES = START_INFO.size, 1024
SIF_MOD_START_PFN = 8

# shared_info, one page
VCPU_INFO_BYTES, LEGACY_MAX_VCPUS = 64, 32
EVTCHN_PENDING = VCPU_INFO_BYTES * LEGACY_MAX_VCPUS  # u32[32]
EVTCHN_MASK = EVTCHN_PENDING + 128  # u32[32]
WC_VERSION, WC_SEC, WC_NSEC = 2304, 2308, 2312
MAX_PFN, P2M_LIST_LIST, NMI_REASON, WC_SEC_HI = 2316, 2320, 2324, 2340  # struct arch_shared_info
EVENT_CHANNELS = 1024

# vcpu_info, 64 bytes
UPCALL_PENDING, UPCALL_MASK, PENDING_SEL, ARCH_CR2, VCPU_TIME = 0, 1, 4, 8, 32
# vcpu_time_info: version, pad, tsc_timestamp, system_time, tsc_to_system_mul, tsc_shift, flags, pad
VCPU_TIME_INFO = struct.Struct("<IIQQIbBxx")

# struct trap_info: vector, flags (DPL 0-1, bit 2: clear the event enable), cs, address
TRAP_INFO = struct.Struct("<BBHI")
TRAP_DPL, TRAP_MASK_EVENTS = 3, 4

# struct multicall_entry: op, result, args[6]
MULTICALL_ENTRY = struct.Struct("<IiIIIIII")
# struct mmu_update: ptr (bits 0-1: the command), val
MMU_UPDATE = struct.Struct("<QQ")
MMU_NORMAL_PT_UPDATE, MMU_MACHPHYS_UPDATE, MMU_PT_UPDATE_PRESERVE_AD = 0, 1, 2
# struct mmuext_op: cmd, arg1, arg2
MMUEXT_OP = struct.Struct("<III")

# callback_op
CALLBACKOP_REGISTER, CALLBACKOP_UNREGISTER = 0, 1
CALLBACK_EVENT, CALLBACK_FAILSAFE, CALLBACK_SYSCALL, CALLBACK_SYSENTER_DEPRECATED, CALLBACK_NMI = 0, 1, 2, 3, 4
CALLBACK_SYSENTER, CALLBACK_SYSCALL32 = 5, 7
CALLBACKF_MASK_EVENTS = 1
# struct callback_register: type, flags, address {cs, eip}
CALLBACK_REGISTER = struct.Struct("<HHII")

# sched_op
SCHEDOP_YIELD, SCHEDOP_BLOCK, SCHEDOP_SHUTDOWN, SCHEDOP_POLL = 0, 1, 2, 3
SHUTDOWN_POWEROFF, SHUTDOWN_REBOOT, SHUTDOWN_SUSPEND, SHUTDOWN_CRASH, SHUTDOWN_WATCHDOG = 0, 1, 2, 3, 4

# mmuext and update_va_mapping flags
UVMF_NONE, UVMF_TLB_FLUSH, UVMF_INVLPG, UVMF_FLUSHTYPE_MASK, UVMF_MULTI = 0, 1, 2, 3, 0

# vm_assist
VMASST_CMD_ENABLE, VMASST_CMD_DISABLE = 0, 1
VMASST_4GB_SEGMENTS, VMASST_4GB_SEGMENTS_NOTIFY, VMASST_WRITABLE_PAGETABLES, VMASST_PAE_EXTENDED_CR3 = 0, 1, 2, 3
VMASST_ARCHITECTURAL_IOPL, VMASST_RUNSTATE_UPDATE_FLAG = 4, 5

# XENFEAT_ bits of submap 0 that XENVER_get_features gives to a PV domU
FEATURES = 0x000220F0

INVALID_MFN = 0xFFFFFFFF
