// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Blocks that count by themselves. libunicorn begins each translated block with two calls:
 *
 *	mov rdi, uc; mov esi, address; mov edx, instructions; mov rcx, m; call pv_block
 *	mov rdi, uc; xor esi, esi; call helper_check_exit_request
 *
 * pv_gen_code, when a block has been translated, writes over the first three loads
 *
 *	sub qword [rbp-8], instructions; jl slow; cmp dword [rbp-16], 0; jge block
 *	jmp slow; (unused bytes, the last one: instructions)
 * slow:	mov rcx, m; call pv_block
 *	mov rdi, uc; xor esi, esi; call helper_check_exit_request
 * block:
 *
 * rbp is env; [rbp-16] is the word that helper_check_exit_request looks at, [rbp-8] the budget. No flag and no
 * register but the loaded ones changes, none of which lives across a call. The code has not run yet: writing to
 * code that has would cost the host a flush of its pipeline for each block.
 *
 * Everything that is overwritten or jumped over is compared first, in each form that libunicorn's code
 * generator has for it; what differs is left alone and goes on calling.
 *
 * Ref: Unicorn 2.1.4 qemu/accel/tcg/translator.c (block hook), qemu/include/exec/gen-icount.h (gen_tb_start),
 * qemu/tcg/i386/tcg-target.inc.c (tcg_out_movi, tcg_out_branch); Intel SDM vol. 2
 */
#include "machine.h"

enum { RCX = 1, RDX = 2, RSI = 6, RDI = 7 };
enum { MAX_INLINE = 127 };	/* an immediate byte; larger blocks gain nothing */
enum { LOAD_BYTES = 10, LEA_BYTES = 7, CALL_BYTES = 5, FAR_CALL_BYTES = 6 };
enum { BEFORE = 32 };	/* bytes of code before the first call: EIP is stored there */
/* TranslationBlock; the number of instructions is where accel.py has found it for block hooks */
enum { TB_PC = 0, TB_INSTRUCTIONS = 22, TB_CODE = 32 };

void pv_block(void *uc, uint64_t address, uint32_t instructions, struct machine *m);
int (*pv_gen_code_original)(uint8_t *tcg, uint8_t *block);
uint64_t pv_tcg_to_uc;	/* offset in TCGContext, found by accel.py */

static int32_t read32(const uint8_t *at)
{
	return (int32_t)(at[0] | at[1] << 8 | at[2] << 16 | (uint32_t)at[3] << 24);
}

static uint64_t read64(const uint8_t *at)
{
	return (uint32_t)read32(at) | (uint64_t)(uint32_t)read32(at + 4) << 32;
}

/* What follows a load of `value` into `reg` at `at`; NULL if that is not what stands there. */
static const uint8_t *load(const uint8_t *at, int reg, uint64_t value)
{
	if (!at)
		return 0;
	if ((at[0] == 0x31 || at[0] == 0x33) && at[1] == (0xc0 | reg << 3 | reg))	/* xor reg, reg */
		return value == 0 ? at + 2 : 0;
	if (at[0] == (0xb8 | reg))	/* mov reg32, imm32 */
		return value == (uint32_t)read32(at + 1) ? at + 5 : 0;
	if (at[0] == 0x48 && at[1] == (0xb8 | reg))	/* mov reg64, imm64 */
		return value == read64(at + 2) ? at + LOAD_BYTES : 0;
	if (at[0] == 0x48 && at[1] == 0x8d && at[2] == (reg << 3 | 5))	/* lea reg, [rip + rel32] */
		return value == (uint64_t)(at + LEA_BYTES) + (int64_t)read32(at + 3) ? at + LEA_BYTES : 0;
	return 0;
}

/* What follows a call of `target` at `at`, or NULL. */
static const uint8_t *call(const uint8_t *at, uint64_t target)
{
	if (!at)
		return 0;
	if (at[0] == 0xe8)	/* call rel32 */
		return target == (uint64_t)(at + CALL_BYTES) + (int64_t)read32(at + 1) ? at + CALL_BYTES : 0;
	if (at[0] == 0xff && at[1] == 0x15)	/* call [rip + rel32] */
		return target == read64(at + FAR_CALL_BYTES + read32(at + 2)) ? at + FAR_CALL_BYTES : 0;
	return 0;
}

/* Where the load of m begins, before the call of pv_block that returns to `after`. */
static uint8_t *slow_path(const uint8_t *after, const struct machine *m)
{
	const uint8_t *at = after - (after[-CALL_BYTES] == 0xe8 ? CALL_BYTES : FAR_CALL_BYTES);

	if (load(at - LOAD_BYTES, RCX, (uint64_t)m) == at)
		return (uint8_t *)at - LOAD_BYTES;
	if (load(at - LEA_BYTES, RCX, (uint64_t)m) == at)
		return (uint8_t *)at - LEA_BYTES;
	return 0;
}

/* The instructions that the block has spent before this call; 0 if it is as libunicorn made it: then the byte
 * belongs to a number of instructions, which is far below 2^24. */
uint32_t pv_inlined(const uint8_t *after, const struct machine *m)
{
	const uint8_t *slow = slow_path(after, m);

	return slow ? slow[-1] : 0;
}

static int rewrite(uint8_t *code, const uint8_t *uc, uint64_t address, uint32_t instructions, struct machine *m)
{
	uint8_t *site = code, *slow = 0;

	if (instructions == 0 || instructions > MAX_INLINE)
		return 0;
	for (; site < code + BEFORE && !slow; site++)
		slow = (uint8_t *)load(load(load(site, RDI, (uint64_t)uc), RSI, address), RDX, instructions);
	site--;

	const uint8_t *after = call(load(slow, RCX, (uint64_t)m), (uint64_t)pv_block);
	const uint8_t *block = call(load(load(after, RDI, (uint64_t)uc), RSI, 0), m->check_exit_request);
	if (!block)
		return 0;

	uint8_t inlined[] = {
		0x48, 0x83, 0x6d, (uint8_t)ENV_BUDGET, (uint8_t)instructions,	/* sub qword [rbp-8], instructions */
		0x7c, (uint8_t)(slow - site - 7),				/* jl slow */
		0x83, 0x7d, (uint8_t)ENV_EXIT_REQUEST, 0,			/* cmp dword [rbp-16], 0 */
		0x7d, (uint8_t)(block - site - 13),				/* jge block */
		0xeb, (uint8_t)(slow - site - 15),				/* jmp slow */
	};
	if (site + sizeof inlined + 1 > slow)
		return 0;
	for (unsigned i = 0; i < sizeof inlined; i++)
		site[i] = inlined[i];
	slow[-1] = (uint8_t)instructions;
	return 1;
}

/* tcg_gen_code(), the last step of a translation; returns the size of the code, or a negative number. */
int pv_gen_code(uint8_t *tcg, uint8_t *block)
{
	int size = pv_gen_code_original(tcg, block);
	uint8_t *uc = *(uint8_t **)(tcg + pv_tcg_to_uc);
	struct machine *m = size > 0 ? machine_of_uc(uc) : 0;

	if (m && m->check_exit_request && !m->count_modes) {
		if (rewrite(*(uint8_t **)(block + TB_CODE), uc, *(uint64_t *)(block + TB_PC),
			    *(uint16_t *)(block + TB_INSTRUCTIONS), m))
			m->inlined++;
		else
			m->not_inlined++;
	}
	return size;
}
