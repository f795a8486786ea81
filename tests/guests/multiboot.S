/*
 * A multiboot kernel: prints, raw, what the loader left, and writes 0x1234507 to the debug-exit port, four bytes wide.
 *
 * On COM1: nine words, EAX EBX CS DS SS EFLAGS CR0 EBP and the first word of .bss; the information structure (88 bytes),
 * memory map, command line, loader's name; of a module its entry, string and contents. Its header has addresses too;
 * the tests clear that flag to have it loaded as an ELF file.
 *
 * Ref: Multiboot Specification 0.6.96, 3.1 to 3.3.
 */
#define HEADER_MAGIC 0x1badb002
#define COM1 0x3f8
#define DEBUG_EXIT 0xf4
#define FLAGS 0x10003			/* aligned modules, memory sizes, addresses */
#define INFO_BYTES 88
#define MODS_COUNT 20

	.text
	.balign	4
	.globl	header
header:
	.long	HEADER_MAGIC, FLAGS, -(HEADER_MAGIC + FLAGS)
	.long	header, header, data_end, bss_end, entry

	.globl	entry
entry:
	movl	$stack_end, %esp
	pushl	blank
	pushl	%ebp
	movl	%cr0, %ecx
	pushl	%ecx
	pushfl
	pushl	%ss
	pushl	%ds
	pushl	%cs
	pushl	%ebx
	pushl	%eax
	movl	%esp, %esi
	movl	$36, %ecx
	call	print
	movl	%ebx, %esi
	movl	$INFO_BYTES, %ecx
	call	print
	movl	48(%ebx), %esi		/* mmap_addr, mmap_length */
	movl	44(%ebx), %ecx
	call	print
	movl	16(%ebx), %esi
	call	print_string
	movl	64(%ebx), %esi
	call	print_string
	cmpl	$0, MODS_COUNT(%ebx)
	je	1f
	movl	24(%ebx), %edi
	movl	%edi, %esi
	movl	$16, %ecx
	call	print
	movl	8(%edi), %esi
	call	print_string
	movl	(%edi), %esi
	movl	4(%edi), %ecx
	subl	%esi, %ecx
	call	print
1:	movl	$0x1234507, %eax
	movw	$DEBUG_EXIT, %dx
	outl	%eax, %dx
	hlt

print:					/* ECX bytes at ESI */
	movw	$COM1, %dx
	rep outsb
	ret

print_string:				/* at ESI, with its NUL */
	movw	$COM1, %dx
1:	lodsb
	outb	%al, %dx
	testb	%al, %al
	jnz	1b
	ret

	.data
	.long	0x600df00d
data_end:

	.bss
	.balign	16
blank:	.skip	4096
stack_end:
bss_end:
