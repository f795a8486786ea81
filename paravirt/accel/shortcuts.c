// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * IN and OUT that a device in Python has answered in advance: line status and data of a serial port, a counter of
 * the interval timer, the POST code. A kernel that prints, measures its clock or waits makes tens of thousands of them.
 *
 * Here an access does what the device would do, and costs and counts the same.
 *
 * Ref: machine/shortcuts.py (the records), devices/uart.py and pit.py (what they stand for)
 */
#include "machine.h"

enum { DATA = 0, LINE_STATUS = 5, COUNTERS = 3 };	/* offsets */
enum { SECOND = 1000000000, PIT_HZ = 1193182, SPAN = 0x10000 };

static int64_t answered(struct machine *m)
{
	*m->budget -= m->port_ns;
	m->charged += m->port_ns;
	m->ports_answered++;
	return m->end - *m->budget;
}

static int read_status(struct machine *m, uint32_t *value)
{
	struct serial_line *line = m->line;

	if (!line->status || line->polls + 1 == line->patience)
		return 0;
	answered(m);
	line->polls++;
	*value = line->status;
	return 1;
}

static int64_t ticks(int64_t now)
{
	return now / SECOND * PIT_HZ + now % SECOND * PIT_HZ / SECOND;
}

static int read_counter(struct machine *m, struct countdown *counter, uint32_t *value)
{
	if (!counter->running)
		return 0;

	int64_t elapsed = ticks(answered(m)) - counter->start;
	if (elapsed < 0)
		elapsed = 0;
	if (counter->periodic)
		elapsed %= counter->count;
	uint32_t left = (uint32_t)(counter->count - elapsed) % SPAN;
	*value = counter->high_next ? left >> 8 : left & 0xff;
	counter->high_next ^= 1;
	return 1;
}

int pv_shortcut_in(struct machine *m, uint32_t port, int size, uint32_t *value)
{
	if (!m->shortcuts || size != 1)
		return 0;
	if (port == m->line_port + LINE_STATUS)
		return read_status(m, value);
	if (port - m->counter_port < COUNTERS)
		return read_counter(m, m->counters[port - m->counter_port], value);
	if (port == m->post_port) {
		answered(m);
		*value = (uint32_t)m->post->value;
		return 1;
	}
	return 0;
}

int pv_shortcut_out(struct machine *m, uint32_t port, int size, uint32_t value)
{
	struct serial_line *line = m->line;

	if (!m->shortcuts || size != 1)
		return 0;
	if (port == m->post_port) {
		answered(m);
		m->post->value = value & 0xff;
		return 1;
	}
	if (port != m->line_port + DATA || !line->plain || line->sent == LINE_BYTES)
		return 0;
	line->sent_at = answered(m);
	line->emptied = 1;
	line->polls = 0;
	line->bytes[line->sent++] = (uint8_t)value;
	return 1;
}
