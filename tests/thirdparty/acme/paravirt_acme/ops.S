/* Reads CR2 and counts how often, in the backend's own data. */
	.text
	.globl acme_read_cr2
acme_read_cr2:
	incl acme_faults
	movl %cr2, %eax
	ret
	.data
	.globl acme_faults
acme_faults:
	.long 0
