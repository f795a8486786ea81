"""A platform may need RAM beside the guest's own, a hypervisor's frames for instance.

`paravirt_reserved_memory` says how much. The machine is larger by that, and the guest is told of its own part only.
"""

from __future__ import annotations

from collections.abc import Iterable

from paravirt.api import Backend, Guest, hookimpl
from paravirt.boot_sequence import boot
from paravirt.console import Console
from paravirt.options import BootOptions
from paravirt_native.plugin import Native

RESERVED = 1 << 20
MEMORY = 32 << 20


def test_the_machine_is_larger_and_the_guest_sees_its_own_part() -> None:
    seen = []

    class Roomy(Native):
        name = "roomy"

        @hookimpl
        def paravirt_reserved_memory(self, memory: int) -> int:
            assert memory == MEMORY
            return RESERVED

        @hookimpl
        def paravirt_machine_ready(self, guest: Guest) -> None:
            seen.append((guest.memory, guest.machine.ram.size))

    class Plugin:
        @hookimpl
        def paravirt_backends(self) -> Iterable[type[Backend]]:
            return (Roomy,)

    output = bytearray()
    record = boot(None, BootOptions(backend="roomy", memory=MEMORY, plugins=(Plugin(),), until="setup_memory"),
                  Console(output.extend))
    assert record.outcome.kind == "stopped", record.outcome.reason
    assert seen == [(MEMORY, MEMORY + RESERVED)]
    assert b"0000000000100000 - 0000000002000000 (usable)" in output
