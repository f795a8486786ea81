"""A hypervisor whose guest's MMU calls are each tried wrong, before they are made.

`Trial` stands between a domain and the handlers of its calls. At each call that the guest makes it makes the ones of
xenwrong.py first, at the same place and moment, compares answers, and looks whether anything is different: the entry
and its table, types, counts and references of every frame. Then the guest's own call is made, so a kernel that is
watched boots as one that is not. Lists are made entry by entry, as by a hypervisor that is interrupted between them.

Ref: tests/xenwrong.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from struct import Struct

from paravirt.api import layout
from paravirt_xen.platform.abi import MMU_UPDATE, MMUEXT_OP
from paravirt_xen.platform.domain import Domain
from paravirt_xen.platform.frames import L1, L2, L3, PRESENT, TYPE, WRITABLE, Frames
from paravirt_xen.platform.hypercalls import HYPERCALLS, Dispatcher
from paravirt_xen.platform.ptwrite import Refused, Target
from paravirt_xen.platform.requests import PREEMPTED, report
from tests.xenwrong import ANSWERS, DROPPED, FAULT, WRONG, Answer, Wrong

NUMBERS = {call.name: number for number, call in HYPERCALLS.items()}
UPDATE, EXTENDED, VA = NUMBERS["mmu_update"], NUMBERS["mmuext_op"], NUMBERS["update_va_mapping"]
VA_OF_DOMAIN = NUMBERS["update_va_mapping_otherdomain"]
ITEMS: dict[int, Struct] = {UPDATE: MMU_UPDATE, EXTENDED: MMUEXT_OP}
OPERATIONS = """PIN_L1_TABLE PIN_L2_TABLE PIN_L3_TABLE PIN_L4_TABLE UNPIN_TABLE NEW_BASEPTR TLB_FLUSH_LOCAL INVLPG_LOCAL
TLB_FLUSH_MULTI INVLPG_MULTI TLB_FLUSH_ALL INVLPG_ALL FLUSH_CACHE SET_LDT 14 NEW_USER_BASEPTR CLEAR_PAGE
COPY_PAGE""".split()
ON_FRAMES = {0, 1, 2, 4, 5, 16, 17}
KINDS = {L1: "L1 entry", L2: "L2 entry", L3: "L3 entry", WRITABLE: "memory"}
MACHPHYS, KEEP = 1, 2
FRAME = (1 << 52) - 1 & ~0xFFF
ALWAYS = 400  # calls of a shape that are all tried; then every `Trial.every`th, so that no part of the boot is left out
CR3 = layout.CR + 3


class Trial:
    """One boot.

    :param every: how many of a shape that comes often are left alone for one that is tried.
    :ivar seen: calls by shape. :ivar tried: wrong ones by shape and by what was wrong. :ivar problems: sentences.
    """

    def __init__(self, every: int = 1) -> None:
        self.every = every
        self.seen: Counter[str] = Counter()
        self.tried: Counter[tuple[str, str]] = Counter()
        self.problems: list[str] = []
        self.domain: Domain

    def dispatcher(self, domain: Domain) -> Dispatcher:
        """In the place of `hypercalls.Dispatcher`."""
        self.domain = domain
        return TryingDispatcher(domain, self)

    def target(self, frames: Frames, mfn: int, va: int, size: int) -> Target:
        """In the place of `ptwrite.Target`."""
        return TryingTarget(self, frames, mfn, va, size)

    def run(self, shape: str, pages: Iterable[int], make: Callable[[Wrong], Answer | None]) -> None:
        """Try a call of a shape, if it is its turn; of `pages` the contents are compared.

        :param make: makes the call with something wrong about it; None if that cannot be.
        """
        self.seen[shape] += 1
        if self.seen[shape] > ALWAYS and self.seen[shape] % self.every:
            return
        if shape not in ANSWERS:
            self.problems.append(f"no answers for {shape}")
            return
        pages = [mfn for mfn in pages if mfn < self.domain.machine_frames]
        before = self._everything(pages)
        for name, expected in ANSWERS[shape].items():
            answer = make(WRONG[name])
            if answer != expected:
                self.problems.append(f"{shape}, {name}: {answer}, not {expected}")
            if self._everything(pages) != before:
                self.problems.append(f"{shape}, {name}: something has changed")
                before = self._everything(pages)
            self.tried[shape, name] += 1

    def _everything(self, pages: Iterable[int]) -> tuple[object, ...]:
        domain, frames = self.domain, self.domain.frames
        contents = [bytes(domain.ram.bytes[mfn << 12 : (mfn + 1) << 12]) for mfn in pages]
        return (domain.l3_mfn, domain.vcpu.state.quads[CR3], frames.counts.tobytes(), frames.refs.tobytes(),
                bytes(frames.owners), bytes(frames.info), contents)


def _entry(domain: Domain, value: int, wrong: Wrong) -> int:
    """An entry with something wrong about it; a present one, for of others nothing is looked at."""
    if wrong.frame is not None:
        value = value & ~FRAME | wrong.frame(domain) << 12
    return value | wrong.flags | PRESENT


class TryingDispatcher(Dispatcher):
    """A dispatcher that tries each call wrong before it makes it."""

    def __init__(self, domain: Domain, trial: Trial) -> None:
        super().__init__(domain)
        self._trial = trial

    def call(self, number: int, words: Sequence[int], *, inner: bool = False) -> int:
        if number == VA:
            self._try_va(words)
        elif number in ITEMS and 0 < words[1] < PREEMPTED:
            return self._list(number, words, inner)
        return super().call(number, words, inner=inner)

    def _list(self, number: int, words: Sequence[int], inner: bool) -> int:
        first, count, done, owner = words[:4]
        size = ITEMS[number].size
        for made in range(count):
            at = first + made * size
            (self._try_update if number == UPDATE else self._try_operation)(at, owner)
            result = super().call(number, (at, 1, done, owner, 0), inner=inner)
            if result:
                report(self.domain, done, made)
                return result
        report(self.domain, done, count)
        return 0

    def _try_va(self, words: Sequence[int]) -> None:
        domain, (va, low, high, flags) = self.domain, words[:4]
        value = low | high << 32
        at = domain.l1_entry_address(va)

        def make(wrong: Wrong) -> Answer:
            entry = _entry(domain, value, wrong)
            place = va if wrong.place is None else wrong.place(domain)
            call, last = (VA, 0) if wrong.owner is None else (VA_OF_DOMAIN, wrong.owner)
            return super(TryingDispatcher, self).call(call, (place, entry & 0xFFFFFFFF, entry >> 32, flags, last))

        shape = "update_va_mapping" + (", cleared" if not value & PRESENT else "")
        self._trial.run(shape, [] if at is None else [at >> 12], make)

    def _made(self, number: int, at: int, data: bytes, owner: int) -> int:
        """A call with another request in the place of the guest's."""
        right = self.domain.read(at, len(data))
        self.domain.write(at, data)
        try:
            return super().call(number, (at, 1, 0, owner, 0))
        finally:
            self.domain.write(at, right)

    def _try_update(self, at: int, owner: int) -> None:
        domain, frames = self.domain, self.domain.frames
        pointer, value = MMU_UPDATE.unpack(domain.read(at, MMU_UPDATE.size))
        command, mfn = pointer & 7, pointer >> 12
        kind = frames.info[mfn] & TYPE if frames.owned(mfn) and frames.counts[mfn] else WRITABLE
        is_entry = command != MACHPHYS and kind != WRITABLE

        def make(wrong: Wrong) -> Answer:
            place = pointer if wrong.place is None else wrong.place(domain) | command
            place = place if wrong.command is None else place & ~7 | wrong.command
            place = place if command != MACHPHYS else place & ~0xFFF | place & 7
            entry = _entry(domain, value, wrong) if is_entry else value
            return self._made(UPDATE, at, MMU_UPDATE.pack(place, entry), owner if wrong.owner is None else wrong.owner)

        shape = "mmu_update: " + ("machine to phys" if command == MACHPHYS else KINDS[kind])
        if is_entry:
            shape += (", cleared" if not value & PRESENT else "") + (", A and D kept" if command == KEEP else "")
        self._trial.run(shape, [mfn], make)

    def _try_operation(self, at: int, owner: int) -> None:
        domain = self.domain
        command, first, second = MMUEXT_OP.unpack(domain.read(at, MMUEXT_OP.size))

        def make(wrong: Wrong) -> Answer:
            data = MMUEXT_OP.pack(command if wrong.command is None else wrong.command,
                                  (first if wrong.frame is None else wrong.frame(domain)) & 0xFFFFFFFF,
                                  second if wrong.second is None else wrong.second)
            return self._made(EXTENDED, at, data, owner if wrong.owner is None else wrong.owner)

        self._trial.run(f"mmuext_op: {OPERATIONS[command]}", [first] if command in ON_FRAMES else [], make)


class TryingTarget(Target):
    """The operand of a direct write, which is tried wrong first."""

    def __init__(self, trial: Trial, frames: Frames, mfn: int, va: int, size: int) -> None:
        super().__init__(frames, mfn, va, size)
        self._trial, self._mfn = trial, mfn

    def write(self, value: int, *, exchange: bool = False) -> None:
        domain, quads, index = self._trial.domain, self._frames.quads, self._index
        old, mask = quads[index], self._mask << self._shift
        new = old & ~mask | value << self._shift & mask

        def make(wrong: Wrong) -> Answer | None:
            entry = _entry(domain, new, wrong)
            if (entry ^ new) & ~mask:
                return None  # it does not lie in what is written
            try:
                super(TryingTarget, self).write(entry >> self._shift, exchange=exchange)
            except Refused:
                return FAULT
            if quads[index] != entry & ~PRESENT:
                return f"{quads[index]:#x}"
            Target(self._frames, self._mfn, index << 3, 8).write(old)
            return DROPPED

        upper = "the upper " if self._shift else ""
        shape = f"store of {upper}{self.size} byte{'s' if self.size > 1 else ''}"
        shape += (", locked" if exchange else "") + (", cleared" if not new & PRESENT else "")
        self._trial.run(shape, [self._mfn], make)
        super().write(value, exchange=exchange)
