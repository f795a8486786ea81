/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Pipes: order and amount of what goes through, both ends waiting for each other, and ends that are gone. */
#include "user.h"

#define AMOUNT 20000	/* several times a pipe's room */

static u8 block[777];

static void writer(u32 fd)
{
	u32 done = 0, i;

	while (done < AMOUNT) {
		u32 n = AMOUNT - done < sizeof(block) ? AMOUNT - done : sizeof(block);

		for (i = 0; i < n; i++)
			block[i] = (u8)((done + i) * 7);
		if (write(fd, block, n) != (s32)n)
			exit(1);
		done += n;
	}
	exit(0);
}

static void test_flow(void)
{
	u32 fds[2], status = 1, done = 0, wrong = 0, i;
	s32 child, n;

	check("pipe", (u32)pipe(fds), 0);
	child = fork();
	if (!child)
		writer(fds[1]);
	close(fds[1]);
	while ((n = read(fds[0], block, 500)) > 0) {
		for (i = 0; i < (u32)n; i++)
			wrong += block[i] != (u8)((done + i) * 7);
		done += (u32)n;
	}
	check("pipe: end", (u32)n, 0);
	check("pipe: amount", done, AMOUNT);
	check("pipe: contents", wrong, 0);
	waitpid(child, &status, 0);
	check("pipe: writer", status, 0);
	close(fds[0]);
}

/* A number goes to and fro and grows by one on the other side. */
static void test_both_ways(void)
{
	u32 to[2], from[2], value = 0, i;
	s32 child;

	pipe(to);
	pipe(from);
	child = fork();
	if (!child) {
		close(to[1]);
		while (read(to[0], &value, 4) == 4) {
			value++;
			write(from[1], &value, 4);
		}
		exit(value == 50 ? 3 : 4);
	}
	close(to[0]);
	for (i = 0; i < 50; i++) {
		write(to[1], &value, 4);
		read(from[0], &value, 4);
	}
	check("pipe: to and fro", value, 50);
	close(to[1]);
	waitpid(child, &value, 0);
	check("pipe: reader sees the end", value, 3 << 8);
	close(from[0]);
	close(from[1]);
}

static void write_without_reader(void)
{
	u32 fds[2];

	pipe(fds);
	close(fds[0]);
	write(fds[1], "x", 1);
	exit(1);
}

void test_pipes(void)
{
	u32 fds[2], text = 0;

	test_flow();
	test_both_ways();
	passed("pipes");
	check("pipe: SIGPIPE", status_of(write_without_reader), SIGPIPE);
	pipe(fds);
	check("pipe: descriptors", fds[0] << 8 | fds[1], 0x304);
	check("pipe: write to the read end", (u32)write(fds[0], "x", 1), (u32)-9);
	check("pipe: read from the write end", (u32)read(fds[1], &text, 1), (u32)-9);
	check("pipe: write, bad pointer", (u32)write(fds[1], (void *)0x1000, 4), (u32)-EBADADDR);
	check("dup2", (u32)dup2(fds[1], 9), 9);
	write(9, "abc", 3);
	check("pipe: read, bad pointer", (u32)read(fds[0], (void *)0x1000, 3), (u32)-EBADADDR);
	check("pipe: short read", (u32)read(fds[0], &text, 4) + text, 3 + 0x636261);
	set_handler(SIGPIPE, (handler)SIG_IGN, 0);
	close(fds[0]);
	check("pipe: EPIPE", (u32)write(9, "x", 1), (u32)-32);
	set_handler(SIGPIPE, (handler)SIG_DFL, 0);
	close(9);
	close(fds[1]);
	check("close: not open", (u32)close(fds[1]), (u32)-9);
	check("pipe: bad pointer", (u32)pipe((void *)0x1000), (u32)-EBADADDR);
	passed("pipe errors");
}
