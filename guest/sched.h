/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Tasks, the registers they leave on their kernel stack, and what waits for what. One CPU. */
#ifndef SCHED_H
#define SCHED_H

#include "mm.h"

/* As entry.S pushes them; `orig_eax` is the system call, ~irq, or an exception's error code. */
struct pt_regs {
	u32 ebx, ecx, edx, esi, edi, ebp, eax, ds, es, orig_eax, eip, cs, eflags, esp, ss;
};

#define FPU_STATE_SIZE 512 /* FXSAVE's image */

/* Ref: Linux 2.6.23, include/asm-i386/processor.h: ops read the first three members. */
struct thread {
	u64 tls[3];
	u32 esp0, sysenter_cs;
	u32 esp;
	u16 fs, gs;
	u32 iopl; /* bits 12 and 13 of EFLAGS */
	bool fpu_used;	/* fpu_state is worth restoring */
	bool fpu_live;	/* the FPU holds this task's state, CR0.TS is clear */
	u8 fpu_state[FPU_STATE_SIZE] aligned(16);
};

#define NR_FILES 16

struct file;

enum { TASK_UNUSED, TASK_RUNNING, TASK_SLEEPING, TASK_ZOMBIE };

/* Of one signal: what sigaction has set. */
struct signal_action {
	u32 handler, flags, restorer, mask;
};
#define NR_SIGNALS 32

struct task {
	u32 pid, state, exit_code;
	u32 pending, blocked;	/* bit n - 1 per signal */
	struct signal_action actions[NR_SIGNALS];
	u32 fault_address;	/* of the last fault that became a signal */
	struct file *files[NR_FILES];
	u32 slice, wake_at;	/* ticks; 0: no time-out */
	struct task *parent;
	struct mm *mm;		/* NULL for a kernel thread */
	char name[16];
	struct thread thread;
};

/* At the low end of every kernel stack; entry.S knows the offset of `flags`. */
struct thread_info {
	struct task *task;
	volatile u32 flags;
};
#define TIF_NEED_RESCHED 1
#define TIF_SIGPENDING 2

#define NR_TASKS 32
#define SIGINT 2
#define SIGILL 4
#define SIGTRAP 5
#define SIGFPE 8
#define SIGKILL 9
#define SIGSEGV 11
#define SIGPIPE 13
#define SIGCHLD 17

struct wait_queue {
	u32 waiting; /* bit per task slot */
};

static inline struct thread_info *thread_info(void)
{
	u32 esp;

	__asm__ volatile("movl %%esp, %0" : "=r"(esp));
	return (struct thread_info *)(esp & ~(THREAD_SIZE - 1u));
}
#define current (thread_info()->task)

struct tss {
	u32 link, esp0, ss0, esp1, ss1, esp2, ss2, cr3, eip, eflags, eax, ecx, edx, ebx, esp, ebp, esi, edi, es, cs, ss,
		ds, fs, gs, ldt;
	u16 trap, io_bitmap;
};
_Static_assert(sizeof(struct tss) == 104, "entry.S and the CPU know the TSS");
_Static_assert(offsetof(struct pt_regs, esp) == 52, "entry.S knows struct pt_regs");
_Static_assert(offsetof(struct thread, esp0) == 24, "ops know struct thread");

/* sched.c */
extern struct task tasks[NR_TASKS], init_task;
extern struct tss cpu_tss;
void sched_init(void);
void load_segments(struct thread *thread);
void update_signal_flag(struct task *task);
void schedule(void);
void schedule_timeout(u32 ticks);
void scheduler_tick(bool user);
void wake_up_task(struct task *task);
void sleep_on(struct wait_queue *queue, u32 ticks);
void wake_up(struct wait_queue *queue);
void cpu_idle(void) noreturn;
extern u32 context_switches, preemptions;

/* process.c */
struct pt_regs *task_regs(struct task *task);
struct task *kernel_thread(void (*function)(u32), u32 argument, const char *name);
s32 do_fork(struct pt_regs *regs);
s32 do_wait(s32 pid, u32 *status_user, u32 options);
void do_exit(u32 status) noreturn;
s32 do_kill(s32 pid, u32 signal);

/* signal.c */
static inline bool signal_pending(const struct task *task) { return task->pending & ~task->blocked; }
void send_signal(struct task *task, u32 signal);
bool signal_handled(u32 signal);
void force_signal(u32 signal, u32 address);
void signals_of_new_program(struct task *task);
void do_signal(void);
s32 sys_sigaction(u32 signal, void *action, void *old);
s32 sys_rt_sigaction(u32 signal, void *action, void *old, u32 set_size);
s32 sys_sigreturn(struct pt_regs *regs);
s32 sys_rt_sigreturn(struct pt_regs *regs);

/* pipe.c */
void files_of_first_program(struct task *task);
void copy_files(struct task *to, const struct task *from);
void close_files(struct task *task);
s32 do_read(u32 fd, u32 buffer, u32 length);
s32 do_write(u32 fd, u32 buffer, u32 length);
s32 do_close(u32 fd);
s32 do_dup2(u32 from, u32 to);
s32 do_pipe(u32 *fds_user);

/* exec.c */
s32 do_execve(struct pt_regs *regs, const char *name, const char *argument);

/* entry.S, switch.S */
void switch_stacks(u32 *save, u32 load);
void ret_from_fork(void);
void kernel_thread_start(void);
void return_to_user(struct pt_regs *regs) noreturn;

/* fpu.c */
void fpu_init(void);
void fpu_save(struct task *task);
void fpu_drop(struct task *task);
void math_state_restore(void);
s32 fpu_to_user(u32 address);
s32 fpu_from_user(u32 address);

/* descriptor.c */
s32 sys_modify_ldt(u32 function, void *pointer, u32 size);
s32 sys_set_thread_area(void *pointer);
s32 sys_iopl(struct pt_regs *regs, u32 level);
void cpu_init(void);

/* traps.c, irq.c */
void set_gate(u32 vector, void (*handler)(void), u32 type, u32 dpl);
#define GATE_INTERRUPT 14
#define GATE_TRAP 15
extern u64 idt_table[256];
typedef void (*irq_handler)(struct pt_regs *regs);
void request_irq(u32 irq, irq_handler handler);
void do_IRQ(struct pt_regs *regs);
void timer_interrupt(struct pt_regs *regs);
extern u64 cpu_gdt_table[GDT_ENTRIES];

/* sysenter.c */
extern u32 sysenter_cs, vsyscall_address, vdso_at, vdso_sigreturn_at, vdso_rt_sigreturn_at;
void sysenter_init(void);

/* syscall.c */
void do_syscall(struct pt_regs *regs);

static inline bool user_mode(const struct pt_regs *regs) { return (regs->cs & 3) == 3; }

#endif
