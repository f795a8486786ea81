/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where the native APIC ops find the registers of the local APIC. 0: the CPU has none (CPUID 1, EDX bit 9), and
 * the kernel uses the 8259s and the 8254 alone.
 */
#include "kernel.h"

extern u32 apic_page;
u32 apic_page;
