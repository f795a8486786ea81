"""A small root file system for a real Linux guest: busybox, links to its applets, and an /init.

The shell runs on the kernel's console with a controlling terminal, so that lines piped to the machine's
serial port are typed into it. When it ends, the guest resets, which ends the run.

Ref: Linux Documentation/driver-api/early-userspace/buffer-format.rst ("newc" archives);
Documentation/admin-guide/devices.txt (device numbers).
"""

from __future__ import annotations

import gzip
import re
import stat
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

INIT = """\
#!/bin/sh
export PATH=/bin HOME=/
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
uname -a
# cttyhack finds the tty behind /dev/console, which itself cannot be a controlling terminal.
setsid cttyhack sh
reboot -f
"""


@dataclass(frozen=True)
class Entry:
    """One file of an archive.

    :param mode: type and permissions, as st_mode has them.
    :param data: contents, or a symbolic link's target.
    :param device: major and minor number of a device node.
    """

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def newc(entries: Iterable[Entry]) -> bytes:
    """The archive of `entries`, in order, with inode numbers from 1 on, owner 0 and time 0."""
    archive = bytearray()
    for number, entry in enumerate([*entries, Entry("TRAILER!!!", 0)], 1):
        name = entry.name.encode() + b"\0"
        fields = (number, entry.mode, 0, 0, 1, 0, len(entry.data), 0, 0, *entry.device, len(name), 0)
        archive += b"070701" + b"".join(b"%08x" % value for value in fields) + name
        archive += bytes(-len(archive) % 4)  # header and name together end on a multiple of 4
        archive += entry.data
        archive += bytes(-len(archive) % 4)
    return bytes(archive)


def applets(busybox: bytes) -> list[str]:
    """The applets of a busybox binary, from its table of names, which is sorted and starts with ``[``.

    Running ``busybox --list`` would need a host that can run i386 programs.

    :raises ValueError: when there is no such table.
    """
    match = re.search(rb"\0(\[\0\[\[\0(?:[a-z0-9_.-]+\0)+)", busybox)
    names = match[1].decode().split("\0")[:-1] if match else []
    if "sh" not in names:
        raise ValueError("not a busybox binary with a shell: no table of applets in it")
    # What follows the table may look like a name as well; the order gives it away.
    count = next((i for i in range(3, len(names)) if names[i] <= names[i - 1]), len(names))
    return names[:count]


def initramfs(busybox: bytes, init: str = INIT) -> bytes:
    """The gzip-compressed archive; the same input gives the same bytes. :raises ValueError: see `applets`."""
    folders = [Entry(name, stat.S_IFDIR | 0o755) for name in ("bin", "dev", "proc", "root", "sys", "tmp")]
    # The kernel opens /dev/console for init before anything could mount devtmpfs.
    nodes = [Entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1)),
             Entry("dev/null", stat.S_IFCHR | 0o666, device=(1, 3))]
    programs = [Entry("bin/busybox", stat.S_IFREG | 0o755, busybox), Entry("init", stat.S_IFREG | 0o755, init.encode())]
    links = [Entry(f"bin/{name}", stat.S_IFLNK | 0o777, b"busybox") for name in applets(busybox) if name != "busybox"]
    return gzip.compress(newc([*folders, *nodes, *programs, *links]), 9, mtime=0)


def main(arguments: list[str]) -> int:
    """``initramfs.py BUSYBOX OUTPUT``."""
    if len(arguments) != 2:
        print("usage: initramfs.py BUSYBOX OUTPUT", file=sys.stderr)
        return 2
    source, output = map(Path, arguments)
    try:
        output.write_bytes(initramfs(source.read_bytes()))
    except (OSError, ValueError) as error:
        print(f"initramfs.py: {source}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
