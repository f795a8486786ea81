"""Kernel images: ELF and bzImage files, their notes and symbols, and how a PC boots them."""

from paravirt.image.bzimage import BzImage, load_bzimage, load_image
from paravirt.image.elf import ElfImage, load_elf
from paravirt.image.multiboot import FlatImage

__all__ = ["BzImage", "ElfImage", "FlatImage", "load_bzimage", "load_elf", "load_image"]
