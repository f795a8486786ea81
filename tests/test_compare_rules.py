"""What may differ between two consoles is named, and hides nothing else.

What must hold: each rule replaces what it names in a line that the reference kernel prints, and another change of
the same line is still a difference; lines of user space of other kernels are compared as they are.

Ref: guest/ (the lines).
"""

from __future__ import annotations

import pytest

from paravirt.compare.rules import OPTIONAL, PARAVIRT, TIME, Rule, apply, normalise

# By rule: two lines that mean the same, and the first with a difference that must be told.
LINES: dict[str, tuple[str, str, str]] = {
    "time": ("[    0.015351] Zone", "[   10.000000] Zone", "[    0.015351] zone"),
    "platform": ("[    0.1] Booting paravirtualized kernel on bare hardware",
                 "[    0.1] Booting paravirtualized kernel on Xen", "[    0.1] Boating paravirtualized kernel on Xen"),
    "command-line": ("[    0.1] Command line: a", "[    0.1] Command line: b c", "[    0.1] Command line a"),
    "memory-map": ("[    0.1] BIOS-provided physical RAM map:", "[    0.1] Xen-provided physical RAM map:",
                   "[    0.1] BIOS-provided physical RAM maps:"),
    "memory-map-entry": ("[    0.1]  BIOS-e820: 0000000000000000 - 000000000009fc00 (usable)",
                         "[    0.1]  Xen: 0000000000000000 - 0000000008000000 (reserved)",
                         "[    0.1]  BIOS-e820: 0000000000000000 - 000000000009fc00 usable"),
    "memory-size": ("[    0.1] 127MB LOWMEM available.", "[    0.1] 128MB LOWMEM available.",
                    "[    0.1] 127MB HIGHMEM available."),
    "sites": ("[    0.1] paravirt: 435 sites patched", "[    0.1] paravirt: 0 sites patched",
              "[    0.1] paravirt: 435 sites unpatched"),
    "clock": ("[    0.1] Detected 1000 MHz processor.", "[    0.1] Detected 999.999 MHz processor.",
              "[    0.1] Detected 1000 GHz processor."),
    "bench-time": ("bench: fork 50 operations took 29600 ns each", "bench: fork 50 operations took 1 ns each",
                   "bench: fork 51 operations took 29600 ns each"),
    "nosegneg": ("vdso: nosegneg clear", "vdso: nosegneg set", "vdso: nosegneg"),
}


@pytest.mark.parametrize("rule", [TIME, *PARAVIRT], ids=lambda rule: rule.name)
def test_a_rule_hides_what_it_names_and_no_more(rule: Rule) -> None:
    line, same, other = LINES[rule.name]
    assert f"<{rule.name}>" in apply(line, [rule])
    assert apply(line, [rule]) == apply(same, [rule])
    assert apply(line, [rule]) != apply(other, [rule])


@pytest.mark.parametrize("rule", OPTIONAL, ids=lambda rule: rule.name)
def test_an_optional_line_may_be_missing(rule: Rule) -> None:
    line = {"halt-test": "[    0.015351] Checking 'hlt' instruction... OK.",
            "platform-found": "[    0.015351] VMI: Found monitor, API version 3.0, ROM version 1.0",
            "more-memory-map": "[    0.015351]  BIOS-e820: 0000000000000000 - 000000000009fc00 (usable)",
            "signature": "[    0.015351] Hypervisor signature: xen-3.0-x86_32p"}[rule.name]
    console = f"one\r\n{line}\r\ntwo\r\n".encode()
    assert normalise(console, paravirt=True) == ["one", "two"]
    for good, bad in ((b"(usable)", b"(broken"), (b"OK", b"no"), (b"re: ", b"re "),
                      (b"Found", b"Lost")):
        console = console.replace(good, bad)
    assert normalise(console, paravirt=True) != ["one", "two"]


def test_of_other_kernels_user_space_counts() -> None:
    console = b"[    0.015351] Linux version 2.6.32\r\nUSERSPACE\r\n<6>[   10.000000] more\r\nbench: took 7 ns each\r\n"
    assert normalise(console, paravirt=False) == ["USERSPACE", "bench: took 7 ns each"]
    early = b"mapping kernel into physical memory\nabout to get started...\nabout to get going...\n"
    assert normalise(early, paravirt=False) == ["about to get going..."]


def test_any_bytes_can_be_compared() -> None:
    assert normalise(b"\xff\xfe\0\n\x1b[31m", paravirt=True) == ["\\xff\\xfe\0", "\x1b[31m"]
    assert normalise(b"", paravirt=True) == [""]
