"""Unpack zip and tar archives: only files, never outside the given folder, and all of them or none."""

import gzip
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.data.archive_entries import ArchiveError, Entry, Meter, Names
from pipeline.data.tar_reader import open_tar
from pipeline.data.zip_reader import open_zip
from pipeline.files import DiskFullError, atomic_file, atomic_folder
from pipeline.settings import SettingsError, Unpack

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")


def is_archive(path: Path) -> bool:
    """Whether the name is that of an archive."""
    return path.name.lower().endswith(SUFFIXES)


def unpack(archive: Path, into: Path, limits: Unpack) -> Path:
    """Unpack into a new folder and return the folder that holds the splits or classes.

    That is `into`, or, if everything in the archive is in one folder, that folder. Raises SettingsError, and leaves
    nothing behind, for an archive that is damaged or incomplete, has members that are no plain files or would land
    outside `into`, exceeds `limits`, or does not fit on the disk.
    """
    work = _Work(archive, limits)
    into.parent.mkdir(parents=True, exist_ok=True)
    try:
        work.check(into.parent)
        with atomic_folder(into) as draft:
            work.write(draft)
    except Exception as error:  # damaged archives make decoders raise zlib.error, struct.error, OverflowError, ...
        raise SettingsError(f"data.root={archive} cannot be unpacked: {work.place(error)}{_explain(error)}") from None
    return _innermost(into)


@dataclass
class _Work:
    archive: Path
    limits: Unpack
    member: str = field(default="", init=False)
    """The name of the member that is being read."""
    meter: Meter = field(init=False)

    def check(self, disk: Path) -> None:
        """Check all names, and what can be checked without writing. For a tar archive, that is everything."""
        names, needed = Names(), 0
        with self._open() as entries:
            for entry in self._each(entries):
                names.add(entry.name, is_file=entry.content is not None)
                needed += entry.size
        if needed > (free := shutil.disk_usage(disk).free):
            raise ArchiveError(f"it needs {needed / 1e9:.1f} GB, but {disk} has {free / 1e9:.1f} GB left")

    def write(self, folder: Path) -> None:
        """Write all files below `folder`. The names are checked again: the archive may have changed since."""
        names = Names()
        with self._open() as entries:
            for entry in self._each(entries):
                path = names.add(entry.name, is_file=entry.content is not None)
                if entry.content is not None:
                    _write(folder / path, entry.content)

    def place(self, error: Exception) -> str:
        """Where the error arose, unless it says so."""
        of_all = isinstance(error, ArchiveError | gzip.BadGzipFile)  # gzip's checksum is of the whole archive
        return f"its member {self.member!r}: " if self.member and not of_all else ""

    def _open(self) -> AbstractContextManager[Iterator[Entry]]:
        self.member, self.meter = "", Meter(self.limits, self.archive.stat().st_size)
        open_kind = open_zip if self.archive.name.lower().endswith(".zip") else open_tar
        return open_kind(self.archive, self.meter)

    def _each(self, entries: Iterator[Entry]) -> Iterator[Entry]:
        for entry in entries:
            self.member = entry.name
            self.meter.count_entry()
            yield entry


def _write(target: Path, content: Iterator[bytes]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        raise ArchiveError(f"it has two members that this disk takes for one, {target.name!r} and another")
    with atomic_file(target, flush=False) as file:
        file.writelines(content)


def _explain(error: Exception) -> str:
    """What is wrong, and what to do."""
    match error:
        case ArchiveError():
            what = str(error)
        case zipfile.BadZipFile() | gzip.BadGzipFile() | EOFError():
            what = f"it is damaged, cut off or not an archive ({error})"
        case MemoryError():
            what = "there is not enough memory"
        case DiskFullError():
            return str(error)
        case OSError(errno=int(), strerror=str(text)):
            what = text
        case NotImplementedError():
            what = f"it is packed in a way that is not read here ({error})"
        case _:
            what = f"it is damaged ({type(error).__name__}: {error})"
    return f"{what}; fetch it again, or unpack it by hand and give the folder"


def _innermost(folder: Path) -> Path:
    """Skip outer folders: many archives hold everything in one, as in `photos/train/...`."""
    inside = [p for p in folder.iterdir() if not p.name.startswith((".", "__MACOSX"))]
    if len(inside) == 1 and inside[0].is_dir() and any(p.is_dir() for p in inside[0].iterdir()):
        return _innermost(inside[0])
    return folder
