"""Kernel images: ELF and bzImage files, their notes and symbols, and how a PC boots them."""

from paravirt.image.bzimage import BzImage, load_bzimage, load_image
from paravirt.image.elf import ElfImage, load_elf

__all__ = ["BzImage", "ElfImage", "load_bzimage", "load_elf", "load_image"]
