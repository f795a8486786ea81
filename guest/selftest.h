/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A test expects values, then says its name: the line reads "ok" if nothing was wrong since the one before. */
#ifndef SELFTEST_H
#define SELFTEST_H

#include "sched.h"

void expect(const char *what, u32 got, u32 expected);
void passed(const char *test);
bool probe_read(u32 address, u32 *value);	/* false if it faults */
bool probe_write(u32 address, u32 value);

void test_mmu(void);	/* selftest_mmu.c */

#endif
