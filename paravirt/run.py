"""One run of one machine: from the lifecycle hooks to the record."""

from __future__ import annotations

import contextlib
import hashlib
import resource
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TextIO

from paravirt.console import Console
from paravirt.endstate import Disagreement, end_state
from paravirt.errors import BackendError, ParavirtError
from paravirt.guest import Guest
from paravirt.machine.outcome import End, GuestExit, Outcome
from paravirt.options import BootOptions
from paravirt.record import Counts, EngineRecord, HostRecord, MarkRecord, OutcomeRecord, Record, StepRecord
from paravirt.steps import Reading, Steps
from paravirt.trace import Trace
from paravirt.tracing import Tracer
from paravirt.watchdog import Watchdog

if TYPE_CHECKING:
    from paravirt.kernel import Kernel

INPUT_POLL_SECONDS = 0.1
MAX_MARKS, MAX_SAMPLES = 10_000, 1000


class Run:
    """
    :param backend: name of the backend that was chosen.
    :param on_slice: called between slices, with instructions and virtual ns so far.
    """

    def __init__(self, guest: Guest, backend: str, options: BootOptions, steps: Steps,
                 on_slice: Callable[[int, int], None] | None = None) -> None:
        self.guest, self.backend, self.options, self.steps = guest, backend, options, steps
        self._on_slice = on_slice
        self.body: Callable[[], None] = guest.machine.run
        self.kernel: Kernel | None = None
        self.op_counts: Callable[[], Counter[str]] = Counter
        self.ops_counted = "all" if options.count_ops else "host"
        self._open = contextlib.ExitStack()
        self._outcome = Outcome(End.ERROR, "the run did not begin")
        self._marks: list[MarkRecord] = []
        self._samples: list[MarkRecord] = []
        self._next_sample = 0
        self.tracer: Tracer | None = None
        if options.trace is not None:
            guest.trace = Trace(options.trace, limit=options.trace_limit)
            self.tracer = Tracer(guest.machine, guest.trace)
        self._started = time.monotonic()
        steps.read = self._reading
        steps.may_stop = True
        self._connect(guest.console)

    def _connect(self, console: Console) -> None:
        machine, options = self.guest.machine, self.options
        machine.symbolize = self.guest.kernel.symbols.nearest
        machine.max_instructions = options.max_instructions
        machine.idle_limit_ns = int(options.idle_limit * 1e9)
        machine.each_slice = self._slice
        machine.wait_for_input = self._wait
        machine.input_at_end = lambda: console.at_end
        console.on_output = machine.active
        console.on_match = lambda text: machine.end(
            End.MATCHED, f"the output matched: {text.decode('utf-8', 'backslashreplace')!r}")
        if options.mark is not None:
            console.marks, console.on_mark = options.mark, self._mark
        console.on_closed = lambda: machine.end(End.STOPPED, "nobody reads the console any more")
        if options.count_modes:
            machine.engine.count_modes()
        if options.realtime:
            machine.sleep = self._sleep

    # ------------------------------------------------------------------ hooks and running

    def call(self, hook: Callable[..., Any], **arguments: object) -> Any:
        """Call a lifecycle hook as a step.

        :raises BackendError: the hook raised.
        """
        name = getattr(hook, "name", "hook")
        with self.steps.hook(name, self.backend):
            try:
                return hook(**arguments)
            except (ParavirtError, GuestExit):
                raise
            except Exception as error:
                raise BackendError(f"backend {self.backend!r}: {name} raised {type(error).__name__}: {error}",
                                   op=name) from error

    def to_the_end(self) -> None:
        """Run the guest. Returns by raising.

        :raises GuestExit: with the outcome. :raises ParavirtError: a backend's code raised.
        """
        with Watchdog(self.guest.machine, self.options.timeout):
            self.guest.console.begin()
            try:
                self.body()
            except BackendError as error:
                error.args = (f"backend {self.backend!r}: {error}",)
                raise
            except (ParavirtError, GuestExit):
                raise
            except Exception as error:
                machine = self.guest.machine
                eip = machine.engine.eip
                place = machine.symbolize(eip) or f"{eip:#x}"
                raise BackendError(f"backend {self.backend!r}: {type(error).__name__}: {error} (guest at {place})"
                                   ) from error

    def _slice(self) -> None:
        console, machine = self.guest.console, self.guest.machine
        console.poll()
        if console.quit:
            machine.end(End.STOPPED, "Ctrl-] was pressed")
        if self.options.sample_ns and machine.engine.now() >= self._next_sample and len(self._samples) < MAX_SAMPLES:
            self._samples.append(self._moment(""))
            self._next_sample = machine.engine.now() + self.options.sample_ns
        if self._on_slice is not None:
            self._on_slice(machine.engine.instructions(), machine.engine.now())

    def _wait(self) -> bool:
        """Nothing can happen but input: wait for it."""
        console, machine = self.guest.console, self.guest.machine
        while not console.at_end and machine.outcome is None:
            if console.wait(INPUT_POLL_SECONDS):
                return True
        return False

    def _sleep(self, ns: int) -> None:
        end = time.monotonic() + ns / 1e9
        console, machine = self.guest.console, self.guest.machine
        while (left := end - time.monotonic()) > 0 and machine.outcome is None:
            if console.at_end:
                time.sleep(min(left, INPUT_POLL_SECONDS))
            elif console.wait(min(left, INPUT_POLL_SECONDS)):
                return

    # ------------------------------------------------------------------ the end

    def ended(self, outcome: Outcome) -> None:
        self._outcome = outcome

    def closing(self, file: TextIO) -> TextIO:
        """Close `file` when the run is over."""
        return self._open.enter_context(file)

    def failed(self, error: ParavirtError) -> None:
        eip = self.guest.machine.engine.eip
        self._outcome = Outcome(End.ERROR, str(error), eip, self.guest.machine.symbolize(eip))

    def finish(self, hook: Any, on_end: Callable[[Guest, Record], None]) -> Record:
        """Make the record and tell everybody."""
        self._open.close()
        state = self._end_state()
        record = self._record(state)
        if self.tracer is not None:
            self.tracer.close(kernel=record.kernel, backend=record.backend, outcome=record.outcome.kind)
        try:
            hook.paravirt_exit(guest=self.guest, outcome=self._outcome)
        finally:
            on_end(self.guest, record)
        return record

    def _end_state(self) -> dict[str, Any] | None:
        if self._outcome.end is not End.POWEROFF:
            return None
        try:
            return end_state(self.guest)
        except Disagreement as problem:
            self._outcome = Outcome(End.CRASH, f"end block and page tables differ: {problem}",
                                    self._outcome.eip, self._outcome.symbol)
            return None

    def _reading(self) -> Reading:
        machine = self.guest.machine
        return Reading(machine.engine.instructions(), machine.engine.now(), machine.traps, self.op_counts())

    def _counts(self) -> Counts:
        machine, engine = self.guest.machine, self.guest.machine.engine
        return Counts(
            ops=dict(sorted(self.op_counts().items())),
            ops_counted=self.ops_counted,
            patched_sites=self.kernel.patched_sites if self.kernel is not None else 0,
            exceptions={str(vector): count for vector, count in engine.exceptions().items()},
            interrupts=engine.interrupts(), port_io=machine.port_io, traps=machine.traps,
            user_instructions=engine.user_instructions(),
            backend=self.guest.all_counts())

    def _moment(self, text: str) -> MarkRecord:
        engine = self.guest.machine.engine
        return MarkRecord(text=text, instructions=engine.instructions(), virtual_ns=engine.now(),
                          counts=self._counts())

    def _mark(self, text: str) -> None:
        if len(self._marks) < MAX_MARKS:
            self._marks.append(self._moment(text))

    def _record(self, state: dict[str, Any] | None) -> Record:
        guest, outcome = self.guest, self._outcome
        machine, engine = guest.machine, guest.machine.engine
        image = guest.kernel.image
        forms = engine.seams.forms()
        fast = {name not in engine.seams.missing for name in forms}
        return Record(
            kernel=str(image.path), sha256=hashlib.sha256(image.data).hexdigest(), backend=self.backend,
            engine=EngineRecord(name="mixed" if len(fast) > 1 else "accelerated" if True in fast else "portable",
                                seams=forms, missing=engine.seams.missing),
            outcome=OutcomeRecord(kind=outcome.end.word, reason=outcome.reason, eip=outcome.eip,
                                  symbol=outcome.symbol),
            exit_code=outcome.exit_code, instructions=engine.instructions(), virtual_ns=engine.now(),
            counts=self._counts(),
            steps=tuple(StepRecord(**vars(step)) for step in self.steps.taken), marks=tuple(self._marks),
            samples=tuple(self._samples),
            state_hash=machine.state_hash() if self.options.hash_state else "", end_state=state,
            console_sha256=guest.console.digest(),
            host=HostRecord(
                wall_seconds=time.monotonic() - self._started,
                max_rss_kib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
                tlb_fills=int(engine.record.fills), late_input=guest.console.late_input))
