/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The guest side of Xen: what stands in the slots of the op table, run in ring 1. One file a concern.
 *
 * Arguments come as regparm(3) has them: EAX, EDX, ECX, then the stack; EAX, ECX and EDX may be changed unless the
 * table says less. Hypercalls take EBX, ECX, EDX, ESI, EDI and may change all of them. Of the kernel these files
 * need, by symbol: xen_start_info, xen_hypercall_page, xen_hypervisor_callback, iret_exc; swapper_pg_dir, init_mm,
 * active_mm, mem_map, nx_enabled, __FIXADDR_TOP, early_page; do_IRQ, request_irq, timer_interrupt; native_banner,
 * printk, panic. ops/ has the files, ops/abi.inc the offsets.
 *
 * Ref: Xen public/xen.h, arch-x86/xen.h, arch-x86/xen-x86_32.h; Linux 2.6.23, arch/i386/xen.
 */
#include "ops/abi.inc"
#include "ops/data.inc"
#include "ops/irq.inc"
#include "ops/upcall.inc"
#include "ops/iret.inc"
#include "ops/multicall.inc"
#include "ops/frames.inc"
#include "ops/entries.inc"
#include "ops/tlb.inc"
#include "ops/pin.inc"
#include "ops/setup.inc"
#include "ops/descriptors.inc"
#include "ops/cpu.inc"
#include "ops/clock.inc"
#include "ops/console.inc"
#include "ops/machine.inc"
