/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The user program, as the linker left it. */
	.section .rodata
	.balign	4096
	.globl	init_elf, init_elf_end
init_elf:
	.incbin	"init.elf"
init_elf_end:
