"""libunicorn through ctypes: what the Python binding hides, wraps slowly or does not know.

Ref: Unicorn 2.1.4 include/unicorn/unicorn.h. The binding opens the engine (`unicorn.Uc`); hooks are
plain C callbacks, since the binding's wrappers cost two thirds of an exit.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import unicorn
from unicorn import unicorn_const as const
from unicorn import x86_const as x86
from unicorn.unicorn_py3 import unicorn as binding

VERSION = (2, 1, 4)

Pointer = ctypes.c_void_p
# Callback types of unicorn.h. Python callbacks take the GIL themselves.
GATE = ctypes.CFUNCTYPE(None, ctypes.c_uint32)  # ours: accel/delivery.c
LEAF = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_uint32)
INTR = ctypes.CFUNCTYPE(None, Pointer, ctypes.c_uint32, Pointer)
IN = ctypes.CFUNCTYPE(ctypes.c_uint32, Pointer, ctypes.c_uint32, ctypes.c_int, Pointer)
OUT = ctypes.CFUNCTYPE(None, Pointer, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint32, Pointer)
PORT_CHECK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_uint32, ctypes.c_int)  # ours: accel/ports.c
INSN = ctypes.CFUNCTYPE(ctypes.c_int, Pointer, Pointer)
SYSENTER = ctypes.CFUNCTYPE(None, Pointer, Pointer)
MMIO_READ = ctypes.CFUNCTYPE(ctypes.c_uint64, Pointer, ctypes.c_uint64, ctypes.c_uint32, Pointer)
MMIO_WRITE = ctypes.CFUNCTYPE(None, Pointer, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_uint64, Pointer)
CODE = ctypes.CFUNCTYPE(None, Pointer, ctypes.c_uint64, ctypes.c_uint32, Pointer)
UNMAPPED = ctypes.CFUNCTYPE(
    ctypes.c_bool, Pointer, ctypes.c_int, ctypes.c_uint64, ctypes.c_int, ctypes.c_int64, Pointer
)


class EngineError(Exception):
    """libunicorn refused a call; the message is its own."""


class Library:
    """One handle on libunicorn. `nogil` functions release the GIL, `gil` ones (short) do not."""

    def __init__(self) -> None:
        path: str = binding.uclib._name
        self.path = path
        self.nogil = ctypes.CDLL(path)
        self.gil = ctypes.PyDLL(path)
        self.emu_start = self._function(
            self.nogil, "uc_emu_start", ctypes.c_int,
            Pointer, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_size_t,
        )
        self.emu_stop = self._function(self.gil, "uc_emu_stop", ctypes.c_int, Pointer)
        self.context_save = self._function(self.gil, "uc_context_save", ctypes.c_int, Pointer, Pointer)
        self.context_restore = self._function(self.gil, "uc_context_restore", ctypes.c_int, Pointer, Pointer)

    @staticmethod
    def _function(library: ctypes.CDLL, name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
        # A fresh object each time: argument types of a shared one would be process-wide.
        function = library[name]
        function.restype, function.argtypes = result, arguments
        return function

    def internal(self, name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
        """An exported function of QEMU's own (x86_64 suffix left out). Raises AttributeError."""
        return self._function(self.gil, name + "_x86_64", result, *arguments)

    def address(self, name: str) -> int:
        """Address of an exported symbol. Raises AttributeError."""
        return ctypes.cast(self.gil[name], Pointer).value or 0

    def hook(self, uc: int, kind: int, callback: object, user: int | None = None, *extra: int,
             begin: int = 1, end: int = 0) -> int:
        """``uc_hook_add`` for a C callback (an address or a ctypes callback); returns its handle."""
        handle = ctypes.c_size_t()
        function = callback if isinstance(callback, int) else ctypes.cast(callback, Pointer).value  # type: ignore[arg-type]
        status = self.gil.uc_hook_add(
            Pointer(uc), ctypes.byref(handle), ctypes.c_int(kind), Pointer(function), Pointer(user),
            ctypes.c_uint64(begin), ctypes.c_uint64(end), *(ctypes.c_int(value) for value in extra),
        )
        self.check(status, "uc_hook_add")
        return handle.value

    def check(self, status: int, what: str) -> None:
        """:raises EngineError: unless `status` is UC_ERR_OK."""
        if status:
            raise EngineError(f"{what}: {self.message(status)}")

    @staticmethod
    def message(status: int) -> str:
        """libunicorn's sentence for an error number."""
        return str(unicorn.UcError(status))


__all__ = ["CODE", "GATE", "IN", "INSN", "INTR", "LEAF", "MMIO_READ", "MMIO_WRITE", "OUT", "PORT_CHECK", "SYSENTER",
           "UNMAPPED", "EngineError", "Library", "Pointer", "const", "unicorn", "x86"]
