"""The ways into the reference kernel on Xen, and out of it, where they are easy to get wrong.

What must hold: an upcall in the direct iret's critical range becomes part of the frame that was about to be returned
to; a return with interrupts off leaves events masked, whatever is pending, and one with interrupts on takes what is
pending; the user's DS may be anything; the failsafe callback makes null of selectors that cannot be loaded and finds
the frame behind them. Linux 2.6.23 has a mistake in each of these.

Ref: guest/xen_entry.S, backends/xen/paravirt_xen/ops/iret.inc, upcall.inc, irq.inc.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from paravirt.conformance.bench import EFLAGS_IF, KERNEL_CS, NAMES, PAGE, PATTERN, USER_CS, USER_DS, Bench
from paravirt.conformance.stubs import BACK_VECTOR
from paravirt.machine import layout
from paravirt.options import BootOptions
from paravirt.testing.boots import Stopped, boot_to_rest_init
from paravirt_xen.guestcode import code

RING = 1
RESERVED = 2  # the bit of EFLAGS that is always set
EDI = 7
COME_BACK = b"\xcd\x91"
INC_EDI_COME_BACK = b"\x47" + COME_BACK
TIMER_IRQ = 0
NO_TLS = 0x33  # a TLS selector without a descriptor


def on_xen(function: Callable[[Bench], None], *, ends: bool = False) -> str:
    """Run a function at rest_init; returns what the guest printed.

    :param ends: the function does not come back, the run ends inside of it.
    """
    output = bytearray()
    came_back: list[bool] = []

    def inspect(stopped: Stopped) -> None:
        function(Bench(stopped, "iret"))
        came_back.append(True)

    outcome = boot_to_rest_init(inspect, BootOptions(backend="xen", memory=16 << 20),
                                after=lambda stopped, _: output.extend(stopped.output))
    assert bool(came_back) != ends, outcome
    return output.decode("latin-1")


def address(bench: Bench, name: str) -> int:
    """Of a symbol of the ops' code."""
    symbol = getattr(code, name)
    return bench.ops.linked.symbols[symbol.object, symbol.symbol]


def wait_for_a_tick(bench: Bench) -> int:
    """Interrupts off until one is pending; returns how many have come."""
    bench.ops.irq_disable()
    before = bench.ticks()
    bench.kernel.udelay(3000)
    assert bench.ticks() == before
    return before


def kernel_code(bench: Bench, machine_code: bytes = INC_EDI_COME_BACK) -> int:
    """Code of the kernel's that comes back to the test."""
    at = bench.code - 32
    bench.write_code(at, machine_code)
    # As `prepare_return`, which would take #GP away from the kernel.
    bench.ops.write_idt_entry(bench.symbol("idt_table"), BACK_VECTOR, *bench.gate(BACK_VECTOR, bench.back))
    return at


def check_registers(got: tuple[int, ...]) -> None:
    expected = [*PATTERN[:EDI], PATTERN[EDI] + 1]
    wrong = {name: (got[number], expected[number]) for number, name in enumerate(NAMES)
             if name != "esp" and got[number] != expected[number]}
    assert not wrong, "registers of the interrupted task"


@pytest.mark.parametrize("place", ["xen_iret_start_crit", "xen_iret_end_crit"])
def test_an_upcall_in_the_critical_range_is_folded_into_the_frame(place: str) -> None:
    def look(bench: Bench) -> None:
        before, target = wait_for_a_tick(bench), kernel_code(bench)
        outer = [target, KERNEL_CS | RING, EFLAGS_IF | RESERVED]
        nested = [address(bench, place), KERNEL_CS | RING, EFLAGS_IF | RESERVED]
        folded = place == "xen_iret_start_crit"
        if not folded:  # behind the range: an upcall like any other, which comes back to where it was
            nested[0] = bench.code - 48
            bench.write_code(nested[0], b"\xcf")
        back = bench.jump(bench.symbol("xen_hypervisor_callback"), PATTERN, [*nested, *outer])
        check_registers(back.registers)
        assert (back.eip, back.cs) == (target + len(INC_EDI_COME_BACK), KERNEL_CS | RING)
        assert bench.ticks() > before, "the event was handled"
        # The frame was where that of int 0x91 is now; below it lies what the kernel had saved last.
        orig_eax = bench.word(back.kernel_esp - 4)
        assert (orig_eax == ~TIMER_IRQ & 0xFFFFFFFF) == folded, "registers saved right below the frame"

    on_xen(look)


def test_an_upcall_in_the_critical_range_on_the_way_to_user_mode() -> None:
    def look(bench: Bench) -> None:
        target = bench.user_page(INC_EDI_COME_BACK)
        bench.prepare_return(bench.kernel_stack())
        before = wait_for_a_tick(bench)
        outer = [target, USER_CS, EFLAGS_IF | RESERVED, target + PAGE - 16, USER_DS]
        nested = [address(bench, "xen_iret_start_crit"), KERNEL_CS | RING, EFLAGS_IF | RESERVED]
        back = bench.jump(bench.symbol("xen_hypervisor_callback"), PATTERN, [*nested, *outer])
        check_registers(back.registers)
        assert (back.cs, back.esp, back.ss) == (USER_CS, target + PAGE - 16, USER_DS)
        assert bench.ticks() > before

    on_xen(look)


@pytest.mark.parametrize("flags", [0, EFLAGS_IF])
def test_a_return_sets_the_event_mask_as_the_frame_says(flags: int) -> None:
    def look(bench: Bench) -> None:
        before, target = wait_for_a_tick(bench), kernel_code(bench)
        back = bench.jump(bench.target(), PATTERN, [target, KERNEL_CS | RING, flags | RESERVED])
        check_registers(back.registers)
        assert back.eflags & EFLAGS_IF == flags
        assert (bench.ticks() > before) == bool(flags), "what was pending is taken, or waits"

    on_xen(look)


def elsewhere(bench: Bench) -> int:
    """A selector of a user's segment that begins somewhere else: through it, no address is the kernel's."""
    thread = bench.thread(bench.kernel_stack())
    bench.set_quad(thread, 0x00CFF3555000FFFF)  # base 0x555000
    bench.ops.load_tls(thread, 0)
    return 0x33


def test_a_return_does_not_need_the_users_ds() -> None:
    def look(bench: Bench) -> None:
        selector, before = elsewhere(bench), wait_for_a_tick(bench)
        target = kernel_code(bench, b"\x6a\x7b\x1f" + INC_EDI_COME_BACK)  # push, pop %ds
        start = bench.code - 48
        jump = (bench.target() - (start + 7) & 0xFFFFFFFF).to_bytes(4, "little")
        bench.write_code(start, b"\x8e\xd8\xe9" + jump)  # mov %eax, %ds; jmp
        for flags in (0, EFLAGS_IF):
            back = bench.jump(start, (selector, *PATTERN[1:]), [target, KERNEL_CS | RING, flags | RESERVED])
            assert back.registers[EDI] == PATTERN[EDI] + 1 and back.eflags & EFLAGS_IF == flags
            assert (bench.ticks() > before) == bool(flags)

    on_xen(look)


def test_flag_ops_of_entry_code_do_not_need_ds() -> None:
    def look(bench: Bench) -> None:
        kernel_code(bench)
        selector, before = elsewhere(bench), wait_for_a_tick(bench)
        start = bench.code - 48
        for name, on in (("irq_disable", False), ("irq_enable", True)):
            call = (address(bench, f"xen_{name}_direct") - (start + 7) & 0xFFFFFFFF).to_bytes(4, "little")
            bench.write_code(start, b"\x8e\xd8\xe8" + call + b"\x6a\x7b\x1f" + COME_BACK)
            back = bench.jump(start, (selector, *PATTERN[1:]), [])
            assert bool(back.eflags & EFLAGS_IF) == on and (bench.ticks() > before) == on

    on_xen(look)


def test_restore_fl_asks_for_an_upcall_if_and_only_if_one_waits_unmasked() -> None:
    def look(bench: Bench) -> None:
        def checks() -> int:
            counts: dict[str, int] = bench.guest.all_counts()
            return counts.get("xen.hypercall.xen_version", 0)

        before, made = wait_for_a_tick(bench), checks()
        bench.ops.restore_fl(0)
        assert (bench.ticks(), checks()) == (before, made), "masked: nothing is asked for"
        bench.ops.restore_fl(EFLAGS_IF)
        assert bench.ticks() > before and checks() == made + 1
        made = checks()
        bench.ops.restore_fl(EFLAGS_IF)
        assert checks() == made, "nothing waits"

    on_xen(look)


def test_the_failsafe_callback_makes_null_of_what_cannot_be_loaded() -> None:
    def look(bench: Bench) -> None:
        target = kernel_code(bench)
        frame = [target, KERNEL_CS | RING, EFLAGS_IF | RESERVED]
        back = bench.jump(bench.symbol("xen_failsafe_callback"), PATTERN, [USER_DS, USER_DS, NO_TLS, NO_TLS, *frame])
        check_registers(back.registers)
        assert back.eip == target + len(INC_EDI_COME_BACK)
        assert [bench.vcpu.segment(index).selector for index in (layout.FS, layout.GS)] == [0, 0]

    on_xen(look)


def test_the_failsafe_callback_finds_a_frame_that_cannot_be_returned_to() -> None:
    """All selectors can be loaded, so it was the return itself; the fix-up reports where it would have gone."""
    targets: list[int] = []

    def look(bench: Bench) -> None:
        target = bench.user_page(COME_BACK)
        targets.append(target)
        bench.jump(bench.symbol("xen_failsafe_callback"), PATTERN,
                   [USER_DS, USER_DS, 0, 0, target, 0x0F0B, EFLAGS_IF | RESERVED, target + PAGE, USER_DS])

    text = on_xen(look, ends=True)
    assert f"bad frame for the return to eip {targets[0]:08x}" in text, text[-300:]


def test_ports_that_nobody_wants_are_dropped() -> None:
    """The store's and the console's channels are pending from the start, and nobody has asked for either."""
    def look(bench: Bench) -> None:
        domain = bench.stopped.backend.domain  # type: ignore[attr-defined]
        before = bench.ticks()
        bench.kernel.udelay(5000)
        assert bench.ticks() > before
        assert all(domain.events.is_masked(port) for port in (1, 2))
        assert not domain.events.pending_unmasked()

    on_xen(look)
