"""bzImage: a compressed kernel with Linux's boot header. And the choice of a loader by magic.

Ref: Linux Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header" and "Details of Header Fields".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from paravirt.errors import ImageError
from paravirt.image.elf import ELF_MAGIC, ElfImage, load_elf
from paravirt.image.files import read_file
from paravirt.image.multiboot import FlatImage, find_multiboot

SECTOR = 512
HEADER = 0x1F1  # file offset of the setup header, and its offset in the zero page
HEADER_LIMIT = 0x290  # what the zero page keeps after the header starts here
LOADED_HIGH = 1
XLF_KERNEL_64 = 1
LOW_LIMIT = 0x100000  # kernels are loaded at 1 MiB or above
MAX_VERSION_TEXT = 256


@dataclass(frozen=True)
class BzImage:
    """A kernel by the Linux boot protocol. A field that its `version` lacks has the documented default.

    :ivar data: the whole file.
    :ivar version: of the boot protocol, 0x020c for 2.12.
    :ivar setup_sects: sectors of 512 bytes of real-mode code after the boot sector.
    :ivar code32_start: physical address at which the protected-mode part is loaded and entered.
    :ivar payload: offset in the protected-mode part, and bytes, of the compressed kernel; (0, 0) if unknown.
    :ivar pref_address: physical address at which the kernel wants to run; 0 if unknown.
    :ivar init_size: bytes from there that it uses before it reads the memory map; 0 if unknown.
    :ivar cmdline_size: longest command line in bytes, the NUL not counted.
    :ivar kernel_version: what the kernel says of itself; "" if nothing.
    """

    path: Path
    data: bytes = field(repr=False)
    version: int
    setup_sects: int
    loadflags: int
    code32_start: int
    initrd_addr_max: int
    kernel_alignment: int
    relocatable: bool
    xloadflags: int
    cmdline_size: int
    payload: tuple[int, int]
    pref_address: int
    init_size: int
    kernel_version: str

    @property
    def header(self) -> bytes:
        """The setup header, as it stands from 0x1f1 on in the file and in the zero page."""
        return self.data[HEADER : min(0x202 + self.data[0x201], HEADER_LIMIT)]

    @property
    def kernel(self) -> bytes:
        """The protected-mode part."""
        return self.data[(self.setup_sects + 1) * SECTOR :]


def load_bzimage(path: Path, data: bytes | None = None) -> BzImage:
    """Read a bzImage.

    :param data: the file's bytes, if they are known already.
    :raises ImageError: naming the file and the field.
    """
    if data is None:
        data = read_file(path)
    if data[0x202:0x206] != b"HdrS":
        raise ImageError(f"{path}: header: no \"HdrS\" at 0x202: no Linux kernel of boot protocol 2.00 or later")
    if len(data) < 2 * SECTOR:
        raise ImageError(f"{path}: setup_sects: the file ends after {len(data)} bytes; is it truncated?")
    header = _Fields(data)
    version = header.word(0x206, 0, 2)
    if version >> 8 != 2:
        raise ImageError(f"{path}: version {version:#06x}: not a boot protocol 2.xx")
    loadflags = header.word(0x211, 0, 1)
    if not loadflags & LOADED_HIGH:
        raise ImageError(f"{path}: loadflags {loadflags:#x}: a zImage, which is loaded below 1 MiB and started in "
                         "real mode; build a bzImage")
    xloadflags = header.word(0x236, 0x20C, 2)
    if xloadflags & XLF_KERNEL_64:
        raise ImageError(f"{path}: xloadflags {xloadflags:#x}: a 64-bit kernel; the machine is an i386")
    sects = data[HEADER] or 4
    start = (sects + 1) * SECTOR
    size = 16 * header.word(0x1F4, 0x204, 4)
    # Counted in units of 16 bytes, with or without the checksum after it: only a larger gap is a loss.
    if len(data) <= start or size > len(data) - start + 32:
        raise ImageError(f"{path}: syssize: {size} bytes of kernel from {start:#x}, the file has "
                         f"{max(0, len(data) - start)}; is it truncated?")
    code32_start = header.word(0x214, 0, 4) or LOW_LIMIT
    if code32_start < LOW_LIMIT:
        raise ImageError(f"{path}: code32_start {code32_start:#x}: below 1 MiB")
    return BzImage(
        path, data, version, sects, loadflags, code32_start,
        initrd_addr_max=header.word(0x22C, 0x203, 4) or 0x37FFFFFF,
        kernel_alignment=header.word(0x230, 0x205, 4),
        relocatable=bool(header.word(0x234, 0x205, 1)),
        xloadflags=xloadflags,
        cmdline_size=header.word(0x238, 0x206, 4) or 255,
        payload=(header.word(0x248, 0x208, 4), header.word(0x24C, 0x208, 4)),
        pref_address=header.word(0x258, 0x20A, 8),
        init_size=header.word(0x260, 0x20A, 4),
        kernel_version=_kernel_version(data, header.word(0x20E, 0, 2), start),
    )


class _Fields:
    """Header fields by file offset; one that the kernel's protocol or the header's end excludes is 0."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._version = int.from_bytes(data[0x206:0x208], "little")
        self._end = min(0x202 + data[0x201], HEADER_LIMIT)

    def word(self, offset: int, since: int, size: int) -> int:
        if self._version < since or offset + size > self._end:
            return 0
        return int.from_bytes(self._data[offset : offset + size], "little")


def _kernel_version(data: bytes, pointer: int, setup_end: int) -> str:
    at = pointer + SECTOR
    if not pointer or at >= setup_end:
        return ""
    text = data[at : min(at + MAX_VERSION_TEXT, setup_end)]
    return text.split(b"\0")[0].decode("utf-8", "backslashreplace")


_OTHERS = (
    (b"\x1f\x8b", "compressed with gzip; unpack it first (gunzip)"),
    (b"\xfd7zXZ\0", "compressed with xz; unpack it first (unxz)"),
    (b"BZh", "compressed with bzip2; unpack it first (bunzip2)"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd; unpack it first (unzstd)"),
    (b"\x5d\0\0", "compressed with lzma; unpack it first (unlzma)"),
    (b"\x02\x21\x4c\x18", "compressed with lz4; unpack it first (unlz4)"),
    (b"0707", "a cpio archive, perhaps an initramfs; give it as the initrd, beside a kernel"),
    (b"MZ", "a PE (EFI or Windows) program without a Linux boot header"),
    (b"!<arch>\n", "an archive (a library or a Debian package); take the kernel out of it first"),
)


def load_image(path: Path) -> ElfImage | BzImage | FlatImage:
    """Read a kernel, by what the file starts with.

    :raises ImageError: also for what is no kernel, saying what it looks like.
    """
    data = read_file(path)
    if data[:4] == ELF_MAGIC:
        return load_elf(path, data)
    if data[0x202:0x206] == b"HdrS":
        return load_bzimage(path, data)
    header = find_multiboot(data)
    if header is not None:
        if header.has_addresses:
            return FlatImage(path, data)
        raise ImageError(f"{path}: a multiboot header without addresses (flag 16), in a file that is no ELF file")
    for magic, what in _OTHERS:
        if data.startswith(magic):
            raise ImageError(f"{path}: {what}")
    if data[0x1FE:0x200] == b"\x55\xaa":
        raise ImageError(f"{path}: a boot sector without Linux's boot header (\"HdrS\" at 0x202)")
    raise ImageError(f"{path}: neither ELF nor bzImage nor multiboot (the file starts with {data[:8].hex(' ')})")
