"""What a platform does in C: a library of its own, put between libunicorn and the exit table.

The hot exits of a hypervisor (bounced faults, page-table writes, system calls) cost microseconds in Python. A
platform may answer them in C: a library that exports a ``struct platform`` (accel/machine.h) as
``paravirt_platform``, built from the package's own header. What it leaves alone, and everything on an engine
without the seam "platform", goes to the exit table; a platform must be whole without its library.

Ref: accel/machine.h (the contract), accel/delivery.c, tlb.c, sysenter.c (where it is asked).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

from paravirt.machine import accel
from paravirt.machine.engine import Engine
from paravirt.machine.library import Pointer

SYMBOL = "paravirt_platform"


class PlatformCode:
    """A platform's library, bound to one machine.

    :param state: the platform's own record; C finds it as ``m->platform_state``. It lives as long as this object.
    :raises PlatformCode.Unavailable: it cannot be used here; the message says why.
    """

    class Unavailable(Exception):
        """The platform has to do without its library; the message says why."""

    def __init__(self, engine: Engine, library: Path, state: ctypes.Structure) -> None:
        missing = engine.seams.missing.get("platform")
        if missing is not None:
            raise self.Unavailable(missing)
        if not library.is_file():
            raise self._missing(engine, f"{library.name} is not built")
        self._engine, self.state = engine, state
        self._so: Any = ctypes.PyDLL(str(library))
        try:
            size = ctypes.c_uint64.in_dll(self._so, SYMBOL)
        except ValueError:
            raise self._missing(engine, f"{library.name} exports no {SYMBOL}") from None
        if size.value != ctypes.sizeof(accel.NativeMachine):
            raise self._missing(engine, f"{library.name} is of another build of the package")
        self._kept: list[object] = []
        engine.record.platform_state = ctypes.addressof(state)
        engine.record.platform = ctypes.addressof(size)
        engine.keep(self)

    @classmethod
    def _missing(cls, engine: Engine, why: str) -> PlatformCode.Unavailable:
        engine.seams.missing["platform"] = why
        return cls.Unavailable(why)

    @property
    def record(self) -> accel.NativeMachine:
        """``struct machine``."""
        return self._engine.record

    def unicorn(self, symbol: str) -> int:
        """Address of one of libunicorn's own i386 functions, for the library to call.

        :raises AttributeError: there is none.
        """
        return self._engine.internal_address(symbol)

    def function(self, name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
        """A function of the library that Python may call; it must not leave by longjmp."""
        function = self._so[name]
        function.restype, function.argtypes = result, arguments
        return function  # type: ignore[no-any-return]

    def callback(self, result: Any, arguments: tuple[Any, ...], function: Callable[..., Any], failed: Any) -> int:
        """A C function pointer that calls Python. What it raises ends the run; C gets `failed`."""
        return self.bare_callback(result, arguments, self._guarded(function, failed))

    def bare_callback(self, result: Any, arguments: tuple[Any, ...], function: Callable[..., Any]) -> int:
        """The same for a function that never raises: it gives what is raised in it to `fail` itself."""
        pointer = ctypes.CFUNCTYPE(result, *arguments)(function)
        self._kept.append(pointer)
        return ctypes.cast(pointer, Pointer).value or 0

    def fail(self, error: BaseException) -> None:
        """End the run; `error` is raised where it was begun."""
        self._engine.fail(error)

    def _guarded(self, function: Callable[..., Any], failed: Any) -> Callable[..., Any]:
        def guarded(*values: Any) -> Any:
            try:
                return function(*values)
            except BaseException as error:
                self._engine.fail(error)
                return failed

        return guarded
