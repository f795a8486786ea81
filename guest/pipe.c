/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * File descriptors, and the two things that they can stand for: the console, and one end of a pipe.
 * Kernel code is not preempted and only tasks touch pipes, so a test and the sleep behind it need no lock.
 * Ref: POSIX.1-2001, pipe, read and write (PIPE_BUF, EPIPE); Linux keeps one page a pipe until 2.6.11.
 */
#include "sched.h"

#define NR_OPEN 64
#define NR_PIPES 16
#define PIPE_ROOM PAGE_SIZE

struct pipe {
	u8 *data;	/* NULL: the slot is free */
	u32 start, length, readers, writers;
	struct wait_queue queue;
};

enum file_kind { FILE_FREE, FILE_CONSOLE, FILE_READ_END, FILE_WRITE_END };
struct file {
	enum file_kind kind;
	u32 count;
	struct pipe *pipe;
};

static struct pipe pipes[NR_PIPES];
static struct file open_files[NR_OPEN];

static struct file *new_file(enum file_kind kind, struct pipe *pipe)
{
	u32 i;

	for (i = 0; i < NR_OPEN; i++)
		if (open_files[i].kind == FILE_FREE) {
			open_files[i] = (struct file){ kind, 1, pipe };
			return &open_files[i];
		}
	return NULL;
}

static void put_file(struct file *file)
{
	struct pipe *pipe = file->pipe;

	if (--file->count)
		return;
	if (pipe) {
		pipe->readers -= file->kind == FILE_READ_END;
		pipe->writers -= file->kind == FILE_WRITE_END;
		wake_up(&pipe->queue);	/* nothing more will come, or be taken */
		if (!pipe->readers && !pipe->writers) {
			put_page(pipe->data);
			pipe->data = NULL;
		}
	}
	file->kind = FILE_FREE;
}

/* Descriptors 0 to 2 of process 1. */
void files_of_first_program(struct task *task)
{
	struct file *console = new_file(FILE_CONSOLE, NULL);

	BUG_ON(!console);
	task->files[0] = task->files[1] = task->files[2] = console;
	console->count = 3;
}

void copy_files(struct task *to, const struct task *from)
{
	u32 fd;

	for (fd = 0; fd < NR_FILES; fd++) {
		to->files[fd] = from->files[fd];
		if (to->files[fd])
			to->files[fd]->count++;
	}
}

void close_files(struct task *task)
{
	u32 fd;

	for (fd = 0; fd < NR_FILES; fd++) {
		if (task->files[fd])
			put_file(task->files[fd]);
		task->files[fd] = NULL;
	}
}

static struct file *file_of(u32 fd)
{
	return fd < NR_FILES ? current->files[fd] : NULL;
}

s32 do_close(u32 fd)
{
	struct file *file = file_of(fd);

	if (!file)
		return -EBADF;
	current->files[fd] = NULL;
	put_file(file);
	return 0;
}

s32 do_dup2(u32 from, u32 to)
{
	struct file *file = file_of(from);

	if (!file || to >= NR_FILES)
		return -EBADF;
	if (from == to)
		return (s32)to;
	file->count++;
	if (current->files[to])
		put_file(current->files[to]);
	current->files[to] = file;
	return (s32)to;
}

/* The lowest free descriptor, the second one if `skip` is the first. */
static u32 free_fd(u32 skip)
{
	u32 fd;

	for (fd = 0; fd < NR_FILES; fd++)
		if (!current->files[fd] && fd != skip)
			break;
	return fd;
}

static struct pipe *new_pipe(void)
{
	u32 i;

	for (i = 0; i < NR_PIPES; i++) {
		struct pipe *pipe = &pipes[i];

		if (pipe->data)
			continue;
		memset(pipe, 0, sizeof(*pipe));
		pipe->data = get_page();
		pipe->readers = pipe->writers = 1;
		return pipe->data ? pipe : NULL;
	}
	return NULL;
}

s32 do_pipe(u32 *fds_user)
{
	u32 fds[2];
	struct pipe *pipe;
	struct file *read_end, *write_end;

	fds[0] = free_fd(NR_FILES);
	fds[1] = free_fd(fds[0]);
	if (fds[0] == NR_FILES || fds[1] == NR_FILES)
		return -EMFILE;
	if (copy_to_user(fds_user, fds, sizeof(fds)))
		return -EFAULT;
	pipe = new_pipe();
	if (!pipe)
		return -ENOMEM;
	read_end = new_file(FILE_READ_END, pipe);
	write_end = new_file(FILE_WRITE_END, pipe);
	if (!read_end || !write_end) {
		if (read_end)
			read_end->kind = FILE_FREE;
		put_page(pipe->data);
		pipe->data = NULL;
		return -ENOMEM;
	}
	current->files[fds[0]] = read_end;
	current->files[fds[1]] = write_end;
	return 0;
}

static s32 pipe_read(struct pipe *pipe, u32 buffer, u32 length)
{
	u32 done = 0;

	while (!pipe->length) {
		if (!pipe->writers || !length)
			return 0;
		if (signal_pending(current))
			return -ERESTARTSYS;
		sleep_on(&pipe->queue, 0);
	}
	while (done < length && pipe->length) {
		u32 n = min(min(length - done, pipe->length), PIPE_ROOM - pipe->start);

		if (copy_to_user((void *)(buffer + done), pipe->data + pipe->start, n))
			return done ? (s32)done : -EFAULT;
		pipe->start = (pipe->start + n) % PIPE_ROOM;
		pipe->length -= n;
		done += n;
	}
	wake_up(&pipe->queue);
	return (s32)done;
}

/* Up to a pipe's room goes in as a whole, never mixed with what others write. */
static s32 pipe_write(struct pipe *pipe, u32 buffer, u32 length)
{
	u32 done = 0;

	while (done < length) {
		u32 end = (pipe->start + pipe->length) % PIPE_ROOM, room = PIPE_ROOM - pipe->length;
		u32 n = min(min(length - done, room), PIPE_ROOM - end);

		if (!pipe->readers) {
			send_signal(current, SIGPIPE);
			return done ? (s32)done : -EPIPE;
		}
		if (!room || (!done && length <= PIPE_ROOM && room < length)) {
			if (signal_pending(current))
				return done ? (s32)done : -ERESTARTSYS;
			sleep_on(&pipe->queue, 0);
			continue;
		}
		if (copy_from_user(pipe->data + end, (const void *)(buffer + done), n))
			return done ? (s32)done : -EFAULT;
		pipe->length += n;
		done += n;
		wake_up(&pipe->queue);
	}
	return (s32)done;
}

s32 do_read(u32 fd, u32 buffer, u32 length)
{
	const struct file *file = file_of(fd);
	char text[128];
	s32 n;

	if (!file || file->kind == FILE_WRITE_END)
		return -EBADF;
	if (file->kind == FILE_READ_END)
		return pipe_read(file->pipe, buffer, length);
	n = console_read(text, min(length, (u32)sizeof(text)));
	return n > 0 && copy_to_user((void *)buffer, text, (u32)n) ? -EFAULT : n;
}

/* To the console as it is; a stamp would tear the program's lines. */
s32 do_write(u32 fd, u32 buffer, u32 length)
{
	const struct file *file = file_of(fd);
	char text[128];
	u32 done, n;

	if (!file || file->kind == FILE_READ_END)
		return -EBADF;
	if (file->kind == FILE_WRITE_END)
		return pipe_write(file->pipe, buffer, length);
	for (done = 0; done < length; done += n) {
		n = min(length - done, (u32)sizeof(text));
		if (copy_from_user(text, (const void *)(buffer + done), n))
			return done ? (s32)done : -EFAULT;
		console_write(text, n);
	}
	return (s32)done;
}
