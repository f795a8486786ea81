/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The programs that execve can find. The first one is as the linker left it; the second one is made here: as small
 * as a program can be, so that what starting it costs is exec's own.
 * Ref: System V ABI, ELF header and program header of an i386 executable.
 */
	.section .rodata
	.balign	4096
	.globl	init_elf, true_elf
init_elf:
	.incbin	"init.elf"

#define TRUE_BASE 0x08048000
#define TRUE_HEADERS (52 + 32)
	.balign	4096
true_elf:
	.byte	0x7f, 'E', 'L', 'F', 1, 1, 1
	.zero	9
	.short	2, 3			/* executable, i386 */
	.long	1, TRUE_BASE + TRUE_HEADERS, 52, 0, 0
	.short	52, 32, 1, 0, 0, 0
	.long	1, 0, TRUE_BASE, TRUE_BASE, 1f - true_elf, 1f - true_elf, 5, 4096
	movl	$1, %eax		/* exit(0) */
	xorl	%ebx, %ebx
	int	$0x80
1:
