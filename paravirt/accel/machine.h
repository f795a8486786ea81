/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What the native helpers and paravirt/machine/accel.py share.
 *
 * Ref: Unicorn 2.1.4, x86-64 Linux wheel: the offsets below are those of its CPUState and
 * CPUX86State. machine/layout.py finds every one of them again at start-up and refuses to
 * load this library where one differs.
 */
#ifndef PARAVIRT_MACHINE_H
#define PARAVIRT_MACHINE_H

#include <stdint.h>

/* CPUX86State ("env") */
enum {
	ENV_EAX = 0, ENV_ECX = 8, ENV_EDX = 16, ENV_EBX = 24, ENV_ESP = 32,
	ENV_EIP = 128, ENV_EFLAGS = 136, ENV_HFLAGS = 176, ENV_HFLAGS2 = 180, ENV_SEGS = 184,
	ENV_ERROR_CODE = 5384, ENV_IS_INT = 5388, ENV_NEXT_EIP = 5392, ENV_OLD_EXCEPTION = 5496,
};
/* CPUState; env lies inside the same allocation, and the TLB descriptors lie just below env */
enum {
	CPU_INTERRUPT_REQUEST = 28, CPU_EXCEPTION_INDEX = 0x81a0, CPU_TO_ENV = 0x8a50,
	ENV_TLB_FAST = -0x40, ENV_EXIT_REQUEST = -0x10,	/* i32, negative: leave the translated code */
	ENV_BUDGET = -8,	/* libunicorn's padding; ours */
};

enum { EFLAGS_IF = 0x200, EFLAGS_IOPL_SHIFT = 12, EFLAGS_VM = 0x20000, HFLAGS_CPL = 3, HFLAGS_SHADOW = 8, INTERRUPT_HARD = 2 };
enum { HFLAGS2_NMI = 4 /* until IRET */, INTERRUPT_NMI = 0x200, VECTOR_NMI = 2 };
enum { ACCESS_READ, ACCESS_WRITE, ACCESS_FETCH };

typedef int (*tlb_fill_fn)(void *cpu, uint64_t va, int size, int access, int mmu, int probe, uint64_t ra);

#define MAX_PENDING 64

struct platform;

/* A host function that needs nothing but registers: `words` of EDX:EAX are what it returns. */
struct leaf {
	uint64_t (*function)(uint32_t eax, uint32_t edx, uint32_t ecx, uint32_t esp);
	uint64_t words;
};

/* What devices have answered in advance: machine/shortcuts.py tells the fields. */
#define LINE_BYTES 1024
struct serial_line {
	uint64_t plain, status, polls, patience, sent;
	int64_t sent_at;
	uint64_t emptied;
	uint8_t bytes[LINE_BYTES];
};
struct countdown {
	uint64_t running, periodic;
	int64_t start, count;
	uint64_t high_next;
};
struct latch {
	uint64_t value;
};

/* One per machine. Python sees the same layout as a ctypes.Structure of the same field names. */
struct machine {
	int64_t *budget;		/* virtual ns left in this slice; an instruction costs 1 */
	int64_t own_budget;		/* where budget points when translated code does not count by itself */
	int64_t end;			/* virtual time at which budget reaches 0 */
	int64_t charged;		/* virtual ns spent on exits so far, not on instructions */
	uint8_t *uc, *cpu, *env;
	/* libunicorn's own functions */
	void (*emu_stop)(void *uc);
	void (*do_interrupt)(void *cpu);
	void (*do_hardirq)(void *env, int vector, int is_hw);
	int (*exec_interrupt)(void *cpu, int request);
	tlb_fill_fn tlb_fill;
	void (*tlb_flush)(void *cpu);
	void (*check_io[3])(void *env, uint32_t port);	/* by log2 of the size; raises #GP by longjmp */
	void (*loop_exit)(void *cpu);	/* longjmp to the execution loop */
	void (*raise_exception)(void *env, int vector, int error, uint64_t ra);	/* the same */
	/* Python */
	int (*acknowledge)(void);	/* vector to deliver, or -1 */
	void (*intr)(void *uc, uint32_t vector, void *user);
	void (*gate)(uint32_t stub);
	void (*python_sysenter)(void *uc, void *user);
	uint32_t (*port_in)(void *uc, uint32_t port, int size, void *user);
	void (*port_out)(void *uc, uint32_t port, int size, uint32_t value, void *user);
	/* delivery */
	int64_t storm_at;		/* instructions run when the last exception came */
	uint64_t storm, storm_limit;	/* exceptions since, without one instruction between them */
	uint64_t recent;		/* the last exceptions, a byte each, the newest lowest */
	uint64_t native[4];		/* bit n: vector n is delivered by do_interrupt, Python is not asked */
	uint64_t gate_start, gate_end;	/* EIPs of the gate page: int 0x83 there is a call of the host */
	uint64_t gate_free;		/* from this EIP on it is an observer's, and costs the guest nothing */
	const struct leaf *leaves;	/* by stub; without a function: gate() is called */
	uint64_t leaf_failed;		/* the function has set the registers itself */
	uint64_t external;		/* what is being delivered is no INT n: a fault of it has EXT set */
	uint64_t window;		/* out: the guest can take an interrupt (when acknowledge is NULL) */
	int64_t exception_ns, rdtsc_ns, gate_ns;
	uint64_t tsc_offset;		/* TSC = virtual ns + this */
	uint64_t msrs;			/* registers that the CPU has not raise #GP */
	uint64_t apic_base;		/* IA32_APIC_BASE where there is a local APIC; 0: none, and it says so */
	char stopped[64];		/* out: why libunicorn cannot go on */
	/* SYSENTER */
	uint64_t sysenter;		/* offset of its registers in env */
	uint64_t sysenter_here, sysenters;	/* done in C, and how often */
	/* fast stores */
	uint8_t *executed;		/* one byte a page of RAM: code was translated from it */
	uint64_t pages;
	uint64_t nr_pending, pending[MAX_PENDING];
	/* counts; only exceptions and interrupts are repeatable */
	uint64_t exceptions[256], interrupts, rdtscs, fills;
	/* asks Python whether IOPL's refusal holds; NULL: the TSS decides */
	int (*port_check)(uint32_t port, int size);
	/* instructions by mode: slower, so only if asked for */
	uint64_t count_modes, user;	/* whether, and how many ran in ring 3 */
	/* the platform */
	const struct platform *platform;	/* NULL: bare hardware, or a platform in Python */
	void *platform_state;			/* its own */
	uint64_t traps;				/* what the platform answered in C, and bare hardware does not have */
	const uint32_t *interrupt_flag;		/* a platform's virtual IF, at EFLAGS's bit; NULL: EFLAGS itself */
	/* for the platform to call */
	int (*account)(struct machine *m, uint32_t vector);	/* an exception counts and costs; 1: the run ends */
	void (*deliver)(struct machine *m, uint32_t vector, int software);	/* through the guest's IDT */
	void (*spend)(struct machine *m, int64_t ns);
	/* slow accesses */
	void *(*find_region)(void *uc, uint64_t physical);	/* libunicorn's own */
	void *ram_region;			/* what it finds for all of RAM; NULL: not asked yet */
	uint64_t ram_bytes;
	/* watch.c */
	/* longjmp, the state being that before the instruction; NULL: data breakpoints never fire */
	void (*loop_exit_restore)(void *cpu, uint64_t ra);
	uint64_t watch_again, watch_hit;	/* the instruction runs again, alone; DR6 bits of what it hit */
	/* inline.c */
	uint64_t check_exit_request;	/* address of libunicorn's helper; 0: every block calls pv_block */
	uint64_t inlined, not_inlined;	/* blocks; not repeatable */
	/* shortcuts.c */
	uint64_t shortcuts;		/* whether IN and OUT may be answered there */
	struct serial_line *line;
	struct countdown *counters[3];
	struct latch *post;
	uint32_t line_port, counter_port, post_port;
	int64_t port_ns;
	uint64_t ports_answered;	/* exits, on the real thing */
};

/*
 * What a platform does in C, in a library of its own that exports one of these as `paravirt_platform`. Each
 * function may be NULL: then it is as on bare hardware. They run between libunicorn and nothing else, so they may
 * call what leaves by longjmp; Python is called last, or not at all.
 */
struct platform {
	uint64_t machine_size;	/* sizeof(struct machine): of the same build as the accelerator */
	/* An exception, or INT n with EIP past it; 1: done. Else it goes on to the IDT or to Python. */
	int (*exception)(struct machine *m, uint32_t vector, int software);
	/* Whether the guest takes external interrupts now; replaces the test of the flag. */
	int (*interruptible)(struct machine *m);
	/* An external interrupt that was acknowledged; 1: done. Else through the IDT. */
	int (*interrupt)(struct machine *m, int vector);
	/* A TLB fill, as CPUClass.tlb_fill gets it; 1: the entry is there. Else as usual. */
	int (*fill)(struct machine *m, uint64_t va, int size, int access, int mmu, int probe, uint64_t ra);
	/* SYSENTER, EIP at the instruction; 1: done, EIP is where to go on. */
	int (*sysenter)(struct machine *m);
	/* IN or OUT that IOPL does not allow; 1: allowed. Else the TSS decides, and #GP. */
	int (*port)(struct machine *m, uint32_t port, int size);
};

#define ENV32(m, offset) (*(uint32_t *)((m)->env + (offset)))
#define ENV64(m, offset) (*(uint64_t *)((m)->env + (offset)))

/* watch.c */
void pv_watch_trap(struct machine *m);
void pv_watch_forget(struct machine *m);

/* inline.c */
uint32_t pv_inlined(const uint8_t *after, const struct machine *m);

/* shortcuts.c: 1: done. The guest may make the access. */
int pv_shortcut_in(struct machine *m, uint32_t port, int size, uint32_t *value);
int pv_shortcut_out(struct machine *m, uint32_t port, int size, uint32_t value);

/* registry.c: hooks that libunicorn calls with nothing but its own pointers find their machine here; most processes
 * have one machine */
#define MAX_MACHINES 256
extern struct machine *pv_machines[MAX_MACHINES];
struct machine *pv_other_machine(const void *cpu, const void *uc);

static inline struct machine *machine_of_cpu(const void *cpu)
{
	struct machine *first = pv_machines[0];

	return first && first->cpu == cpu ? first : pv_other_machine(cpu, 0);
}

static inline struct machine *machine_of_uc(const void *uc)
{
	struct machine *first = pv_machines[0];

	return first && first->uc == uc ? first : pv_other_machine(0, uc);
}

#endif
