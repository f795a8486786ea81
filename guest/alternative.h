/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Code that depends on the CPU: what is written down here is replaced when it is known. alternative.c does it.
 * Ref: Linux 2.6.23, include/asm-i386/alternative.h (struct alt_instr, sections .altinstructions and .smp_locks).
 */
#ifndef ALTERNATIVE_H
#define ALTERNATIVE_H

#include "types.h"

#define ALT_STRING2(x) #x
#define ALT_STRING(x) ALT_STRING2(x)

/* `with` in place of `code` on a CPU that has the feature: a bit number of CPUID 1, EDX. `with` is not longer. */
#define ALTERNATIVE(code, with, bit) \
	"661:\n\t" code "\n662:\n\t" \
	".pushsection .altinstructions,\"a\"\n\t.long 661b, 663f\n\t" \
	".byte " ALT_STRING(bit) ", 662b-661b, 664f-663f, 0\n\t.popsection\n\t" \
	".pushsection .altinstr_replacement,\"ax\"\n663:\n\t" with "\n664:\n\t.popsection"
#define ALT_BIT_FXSR 24

/* The prefix of an access that other CPUs must see as one. Alone, this CPU does without it. */
#define LOCK_PREFIX ".pushsection .smp_locks,\"a\"\n\t.long 661f\n\t.popsection\n661:\tlock\n\t"

void alternative_instructions(void);

#endif
