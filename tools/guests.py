"""Fetches real i386 kernels and a user space from Debian's archive into guests/, for tests and play.

It needs apt-get but no root, and touches nothing of the host's: apt works in a folder of its own, for
another architecture and release, from the archive that the host's own sources name. apt checks signatures
and hashes. Nothing that is fetched belongs into the repository or into a package.

Ref: apt.conf(5), sources.list(5); deb(5): an ar archive with a data.tar member.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if not __package__:  # run as a script, which has only its own folder on the path
    sys.path.insert(0, str(ROOT))
from tools.initramfs import initramfs  # noqa: E402

RELEASE = "bookworm"  # the last one with i386 kernels
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
FOLDER = ROOT / "guests"


class FetchError(Exception):
    """Something cannot be had; the message says what and why."""


@dataclass(frozen=True)
class Guest:
    """A file of a Debian package.

    :param package: its name, or a meta package's (`versioned`), whose dependency carries the version.
    :param member: the start of the file's path in the package.
    """

    output: str
    package: str
    member: str
    mode: int = 0o644
    versioned: bool = False


GUESTS: Mapping[str, Guest] = {
    "linux": Guest("vmlinuz", "linux-image-686", "./boot/vmlinuz-", versioned=True),
    "linux-pae": Guest("vmlinuz-pae", "linux-image-686-pae", "./boot/vmlinuz-", versioned=True),
    "busybox": Guest("busybox", "busybox-static", "./bin/busybox", 0o755),
    "memtest": Guest("memtest.bin", "memtest86+", "./boot/memtest86+ia32.bin"),
    "grub-xen": Guest("grub-i386-xen.bin", "grub-xen-host", "./usr/lib/grub-xen/grub-i386-xen.bin"),
}
DEFAULT = ("linux", "busybox", "grub-xen")


def members(package: bytes) -> Iterator[tuple[str, bytes]]:
    """Names and contents in an ar archive. :raises FetchError: when it is none."""
    if package[:8] != b"!<arch>\n":
        raise FetchError("not a Debian package: no ar archive")
    offset = 8
    while offset + 60 <= len(package):
        header = package[offset : offset + 60]
        if header[58:] != b"`\n" or not header[48:58].strip().isdigit():
            raise FetchError(f"a damaged Debian package: ar header at byte {offset}")
        size = int(header[48:58])
        yield header[:16].decode("ascii", "replace").rstrip(" /"), package[offset + 60 : offset + 60 + size]
        offset += 60 + size + size % 2


def extract(package: bytes, member: str) -> bytes:
    """The first regular file in `package` whose path starts with `member`. :raises FetchError: without one."""
    for name, data in members(package):
        if name.startswith("data.tar"):
            try:
                # As a stream: of a kernel's modules nothing need be unpacked once the kernel is found.
                with tarfile.open(fileobj=io.BytesIO(data), mode="r|*") as archive:
                    for entry in archive:
                        if entry.isfile() and entry.name.startswith(member) and (file := archive.extractfile(entry)):
                            return file.read()
            except tarfile.TarError as error:
                raise FetchError(f"{name}: {error}") from error
    raise FetchError(f"no file {member}* in the package")


def write(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a file as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(data)
        temporary.chmod(mode)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


class Apt:
    """apt for i386 and RELEASE, in a folder of its own.

    :param folder: an empty folder. :param archive: URI of a Debian archive.
    """

    def __init__(self, folder: Path, archive: str) -> None:
        self.folder = folder
        for name in ("lists/partial", "cache/archives/partial"):
            (folder / name).mkdir(parents=True)
        (folder / "status").touch()
        source = f"Types: deb\nURIs: {archive}\nSuites: {RELEASE}\nComponents: main\nArchitectures: i386\n"
        source += f"Signed-By: {KEYRING}\n" if KEYRING.exists() else ""
        (folder / "debian.sources").write_text(source)
        settings = {
            "Dir::State": folder, "Dir::State::status": folder / "status", "Dir::State::lists": folder / "lists",
            "Dir::Cache": folder / "cache", "Dir::Etc::sourcelist": folder / "debian.sources",
            "Dir::Etc::sourceparts": "-", "Dir::Etc::parts": "-", "Dir::Etc::main": "-", "Dir::Etc::preferences": "-",
            "Dir::Etc::preferencesparts": "-", "APT::Architecture": "i386", "APT::Sandbox::User": "",
            "APT::Update::Error-Mode": "any", "Acquire::Languages": "none", "Acquire::Retries": "1",
            "Debug::NoLocking": "true",
        }
        # The host's settings are left out but for how to reach a network: proxies, certificates, time limits.
        network = re.findall(r'^Acquire::https?::[^"\n]*"[^"\n]*";$', run(["apt-config", "dump", "Acquire"]), re.M)
        lines = [*network, *(f'{key} "{value}";' for key, value in settings.items()), 'APT::Architectures { "i386"; };']
        (folder / "apt.conf").write_text("\n".join(lines) + "\n")
        self.run("apt-get", "-q", "update")

    def run(self, *command: str) -> str:
        """Standard output of an apt command. :raises FetchError: with its messages."""
        return run(list(command), cwd=self.folder, config=self.folder / "apt.conf")

    def package(self, guest: Guest) -> str:
        """The name of the package that holds `guest`. :raises FetchError: when the archive has none."""
        if not guest.versioned:
            return guest.package
        flavour = guest.package.removeprefix("linux-image-")
        found = re.search(rf"Depends: (linux-image-[\d.]+-\d+-{flavour})$",
                          self.run("apt-cache", "depends", guest.package), re.M)
        if not found:
            raise FetchError(f"{guest.package} names no kernel package")
        return found[1] + "-unsigned"

    def download(self, package: str) -> bytes:
        """The .deb file. :raises FetchError: with apt's messages."""
        self.run("apt-get", "-q", "download", package)
        (file,) = self.folder.glob(f"{package}_*.deb")
        return file.read_bytes()


def run(command: list[str], cwd: Path | None = None, config: Path | None = None) -> str:
    """Standard output of a command. :raises FetchError: with its error output."""
    environment = {**os.environ, "LC_ALL": "C", **({"APT_CONFIG": str(config)} if config else {})}
    try:
        result = subprocess.run(command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, capture_output=True,
                                text=True, errors="replace", timeout=300, check=False)
    except FileNotFoundError as error:
        raise FetchError(f"{command[0]} is not installed; this needs a Debian system or the like") from error
    except subprocess.TimeoutExpired as error:
        raise FetchError(f"{' '.join(command)}: no end after 5 minutes") from error
    if result.returncode:
        raise FetchError(f"{' '.join(command)}:\n{result.stderr.strip()}")
    return result.stdout


def archives() -> list[str]:
    """URIs of Debian archives among the host's sources, in order. :raises FetchError: when there are none."""
    targets = run(["apt-get", "indextargets", "--no-release-info", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)",
                   "Created-By: Packages"])
    rows = [line.split() for line in targets.splitlines()]
    # Updates and security lie in other suites ("bookworm-updates"); the plain one has all that is wanted.
    found = [row[0] for row in rows if len(row) == 3 and row[2] == "main" and "-" not in row[1] and "debian" in row[0]]
    if not found:
        raise FetchError("no Debian archive in apt's sources; name one with --archive URL")
    return list(dict.fromkeys(found))


def fetch(guests: list[Guest], folder: Path, archive: str) -> None:
    """Put the files of `guests` into `folder`. :raises FetchError: at the first that cannot be had."""
    with tempfile.TemporaryDirectory(prefix="paravirt-guests-") as name:
        apt = Apt(Path(name), archive)
        for guest in guests:
            package = apt.package(guest)
            write(folder / guest.output, extract(apt.download(package), guest.member), guest.mode)
            print(f"{folder.name}/{guest.output}: from {package}")


def provide(names: list[str], folder: Path, archive: str | None) -> None:
    """Fetch what is missing and make the initramfs. :raises FetchError: with what failed for each archive."""
    missing = [GUESTS[name] for name in names if not (folder / GUESTS[name].output).exists()]
    failures: list[str] = []
    for uri in ([archive] if archive else archives()) if missing else []:
        try:
            fetch(missing, folder, uri)
            break
        except FetchError as error:
            failures.append(str(error))
    else:
        if failures:
            raise FetchError("\n".join(failures))
    busybox = folder / "busybox"
    if busybox.exists():
        data, path = initramfs(busybox.read_bytes()), folder / "initrd.gz"
        if not path.exists() or path.read_bytes() != data:
            write(path, data)
            print(f"{folder.name}/initrd.gz: made from {folder.name}/busybox")


def explain(names: list[str], folder: Path) -> str:
    """What is missing and how to provide it by hand; empty when nothing is."""
    lines = [
        f"  {folder.name}/{guest.output}: file {guest.member.removeprefix('.')}* of Debian {RELEASE}'s i386 package "
        f"{guest.package + (' (the -unsigned package it depends on)' if guest.versioned else '')}"
        for guest in map(GUESTS.__getitem__, names) if not (folder / guest.output).exists()
    ]
    return "\n".join(["missing; with a network run `make guests`, or put there by hand:", *lines]) if lines else ""


def main(arguments: list[str] | None = None) -> int:
    """0 when all is there, 1 when something is missing."""
    parser = argparse.ArgumentParser(description="Fetch real i386 guests into guests/.")
    parser.add_argument("names", nargs="*", metavar="NAME",
                        help=f"of {', '.join(GUESTS)}; default: {' '.join(DEFAULT)}")
    parser.add_argument("--archive", metavar="URL", help="a Debian archive, instead of those in apt's sources")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="default: %(default)s")
    parser.add_argument("--tolerant", action="store_true", help="exit 0 though something is missing")
    options = parser.parse_args(arguments)
    names = options.names or list(DEFAULT)
    if unknown := [name for name in names if name not in GUESTS]:
        parser.error(f"no guest {unknown[0]!r}; there are {', '.join(GUESTS)}")
    try:
        provide(names, options.folder, options.archive)
    except (FetchError, OSError, ValueError) as error:
        print(f"guests.py: {error}", file=sys.stderr)
    if text := explain(names, options.folder):
        print(f"guests.py: {text}", file=sys.stderr)
    ready = (options.folder / "initrd.gz").exists() or "busybox" not in names
    return 0 if options.tolerant or (not text and ready) else 1


if __name__ == "__main__":
    sys.exit(main())
