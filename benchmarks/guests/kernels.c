/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The CPU kernels: what programs spend their time on, without the machine around it.
 *
 * Each returns a checksum that depends on all that it computed, equal for every compiler and every CPU.
 *
 * Ref: FIPS 180-4, 4.1.2, 4.2.2 and 6.2.2 (SHA-256).
 */

#include "guest.h"

#define NOINLINE __attribute__((noinline))

/* The compiler calls these of its own accord. */
void *memset(void *to, int value, u32 count)
{
	void *start = to;

	__asm__ volatile("rep stosb" : "+D"(to), "+c"(count) : "a"(value) : "memory");
	return start;
}

void *memcpy(void *to, const void *from, u32 count)
{
	void *start = to;

	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
	return start;
}

/* Registers only: add, xor, rotate, multiply, compare. */
u32 bench_alu(u32 seed, u32 rounds)
{
	u32 a = seed, b = 0x9e3779b9u, c = 0x7f4a7c15u, d = ~seed;

	for (u32 i = 0; i < rounds * 100000; i++) {
		a += b ^ i;
		b = b << 7 | b >> 25;
		c = c * 1664525u + a;
		d = d < c ? d + b : d - a;
		a ^= d >> 3;
	}
	return a ^ b ^ c ^ d;
}

/* 256 KiB by words, in a loop. */
u32 bench_copy(u32 seed, u32 rounds)
{
	volatile u32 *from = (volatile u32 *)WORK, *to = (volatile u32 *)(WORK + 0x80000);
	const u32 count = 0x10000;

	for (u32 i = 0; i < count; i++)
		from[i] = next_random(&seed);
	for (u32 round = 0; round < rounds; round++) {
		for (u32 i = 0; i < count; i += 4) {
			to[i] = from[i];
			to[i + 1] = from[i + 1];
			to[i + 2] = from[i + 2];
			to[i + 3] = from[i + 3];
		}
		from[round % count] ^= to[count - 1 - round % count];
	}
	return to[seed % count] + from[rounds % count];
}

/* 256 KiB by one instruction, rep movsd. */
u32 bench_repcopy(u32 seed, u32 rounds)
{
	u32 *const source = (u32 *)WORK, *const target = (u32 *)(WORK + 0x80000);
	const u32 words = 0x10000;

	for (u32 i = 0; i < words; i++)
		source[i] = next_random(&seed);
	for (u32 round = 0; round < rounds; round++) {
		u32 *from = source, *to = target, count = words;

		__asm__ volatile("rep movsl" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
		source[round % words] ^= target[words - 1 - round % words];
	}
	return target[seed % words] + source[rounds % words];
}

static NOINLINE u32 fibonacci(u32 n, u32 one)
{
	return n < 2 ? one : fibonacci(n - 1, one) + fibonacci(n - 2, one ^ n);
}

u32 bench_call(u32 seed, u32 rounds)
{
	u32 sum = 0;

	for (u32 round = 0; round < rounds; round++)
		sum += fibonacci(20, seed + round);
	return sum;
}

static NOINLINE int ascending(const u32 *a, const u32 *b)
{
	return (*a > *b) - (*a < *b);
}

static NOINLINE int by_low_half(const u32 *a, const u32 *b)
{
	u32 x = *a << 16 | *a >> 16, y = *b << 16 | *b >> 16;

	return (x > y) - (x < y);
}

static NOINLINE void quicksort(u32 *first, u32 *last, int (*compare)(const u32 *, const u32 *))
{
	while (first < last) {
		u32 pivot = first[(last - first) / 2], *low = first, *high = last;

		while (low <= high) {
			while (compare(low, &pivot) < 0)
				low++;
			while (compare(high, &pivot) > 0)
				high--;
			if (low <= high) {
				u32 other = *low;

				*low++ = *high;
				*high-- = other;
			}
		}
		quicksort(first, high, compare);
		first = low;
	}
}

/* 8192 numbers, compared through a pointer. */
u32 bench_sort(u32 seed, u32 rounds)
{
	u32 *data = (u32 *)WORK, sum = 0;
	const u32 count = 8192;

	for (u32 round = 0; round < rounds; round++) {
		for (u32 i = 0; i < count; i++)
			data[i] = next_random(&seed);
		quicksort(data, data + count - 1, round & 1 ? by_low_half : ascending);
		for (u32 i = 0; i < count; i += 512)
			sum = sum * 31 + data[i];
	}
	return sum;
}

/* Primes below 2^18, a byte for each number. */
u32 bench_sieve(u32 seed, u32 rounds)
{
	volatile u8 *composite = (volatile u8 *)WORK;
	const u32 limit = 1u << 18;
	u32 sum = seed;

	for (u32 round = 0; round < rounds; round++) {
		for (u32 i = 0; i < limit; i++)
			composite[i] = 0;
		for (u32 i = 2; i * i < limit; i++)
			if (!composite[i])
				for (u32 multiple = i * i; multiple < limit; multiple += i)
					composite[multiple] = 1;
		for (u32 i = 2; i < limit; i++)
			sum += !composite[i];
	}
	return sum;
}

static const u32 sha_constants[64] = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
	0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
	0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
	0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
	0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
	0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
	0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static inline u32 rotate(u32 x, u32 n)
{
	return x >> n | x << (32 - n);
}

static NOINLINE void sha_block(u32 hash[8], const u32 block[16])
{
	u32 w[64], s[8];

	for (u32 i = 0; i < 16; i++)
		w[i] = __builtin_bswap32(block[i]);
	for (u32 i = 16; i < 64; i++) {
		u32 low = rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3;
		u32 high = rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10;

		w[i] = w[i - 16] + low + w[i - 7] + high;
	}
	for (u32 i = 0; i < 8; i++)
		s[i] = hash[i];
	for (u32 i = 0; i < 64; i++) {
		u32 t1 = s[7] + (rotate(s[4], 6) ^ rotate(s[4], 11) ^ rotate(s[4], 25)) +
			((s[4] & s[5]) ^ (~s[4] & s[6])) + sha_constants[i] + w[i];
		u32 t2 = (rotate(s[0], 2) ^ rotate(s[0], 13) ^ rotate(s[0], 22)) +
			((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));

		for (u32 j = 7; j > 0; j--)
			s[j] = s[j - 1];
		s[4] += t1;
		s[0] = t1 + t2;
	}
	for (u32 i = 0; i < 8; i++)
		hash[i] += s[i];
}

/* SHA-256's compression over 64 KiB. */
u32 bench_hash(u32 seed, u32 rounds)
{
	u32 hash[8] = { 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19 };
	u32 *data = (u32 *)WORK;
	const u32 words = 0x4000;

	for (u32 i = 0; i < words; i++)
		data[i] = next_random(&seed);
	for (u32 round = 0; round < rounds; round++)
		for (u32 i = 0; i < words; i += 16)
			sha_block(hash, data + i);
	return hash[0] ^ hash[7];
}

enum { ADD, SUB, XOR, MUL, SHIFT, LOAD, STORE, SKIP, SWAP, COUNT, OPCODES };

/* A machine of two registers and 256 cells, its program of 1024 random instructions run from end to end. */
static NOINLINE u32 interpret(const u8 *program, u32 length, u32 *cells, u32 a)
{
	u32 b = 1, count = 0;

	for (u32 at = 0; at < length; at += 2) {
		u32 operand = program[at + 1];

		switch (program[at]) {
		case ADD: a += operand + b; break;
		case SUB: b -= operand ^ a; break;
		case XOR: a ^= b + operand; break;
		case MUL: a *= operand | 1; break;
		case SHIFT: b = b << (operand & 15) | a >> 16; break;
		case LOAD: a += cells[operand]; break;
		case STORE: cells[(operand + a) & 255] = b; break;
		case SKIP: if (a & 1) at += 2; break;
		case SWAP: operand = a; a = b; b = operand; break;
		default: count++; break;
		}
	}
	return a ^ b ^ count;
}

u32 bench_interpreter(u32 seed, u32 rounds)
{
	u8 *program = (u8 *)WORK;
	u32 *cells = (u32 *)(WORK + 0x10000), sum = seed;

	for (u32 i = 0; i < 256; i++)
		cells[i] = next_random(&seed);
	for (u32 i = 0; i < 2048; i += 2) {
		program[i] = (u8)((next_random(&seed) >> 8) % OPCODES);
		program[i + 1] = (u8)(next_random(&seed) >> 8);
	}
	for (u32 round = 0; round < rounds * 100; round++)
		sum = interpret(program, 2048, cells, sum);
	return sum;
}
