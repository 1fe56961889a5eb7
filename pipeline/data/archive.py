"""Zip and tar archives of a folder: unpacked below one folder, and nowhere else."""

import shutil
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

from pipeline.settings import SettingsError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")


def is_archive(path: Path) -> bool:
    return path.name.lower().endswith(SUFFIXES)


def unpack(archive: Path, into: Path) -> Path:
    """Unpack and return the folder of splits or classes: `into`, or the only folder that holds all the others.

    Raises SettingsError for a damaged archive, one that does not fit on the disk, and one that reaches outside.
    """
    into.mkdir(parents=True)
    try:
        if archive.name.lower().endswith(".zip"):
            _unzip(archive, into)
        else:
            _untar(archive, into)
    except (zipfile.BadZipFile, tarfile.TarError, OSError, EOFError, RuntimeError, NotImplementedError) as error:
        what = "it is damaged, or no archive" if isinstance(error, tarfile.ReadError) else error
        raise SettingsError(f"data.root={archive} cannot be unpacked: {what}; get it again, or unpack it by hand and "
                            "give the folder") from None  # fmt: skip
    return _innermost(into)


def _unzip(archive: Path, into: Path) -> None:
    with zipfile.ZipFile(archive) as file:
        members = [m for m in file.infolist() if not m.is_dir()]
        for member in members:
            parts = PurePosixPath(member.filename.replace("\\", "/"))
            if parts.is_absolute() or ".." in parts.parts:
                raise zipfile.BadZipFile(f"its member {member.filename!r} reaches outside")
        _check_space(sum(m.file_size for m in members), into)
        for member in members:
            file.extract(member, into)


def _untar(archive: Path, into: Path) -> None:
    with tarfile.open(archive) as file:
        _check_space(sum(m.size for m in file.getmembers()), into)
        file.extractall(into, filter="data")  # raises for what leads outside, and for devices


def _check_space(needed: int, into: Path) -> None:
    free = shutil.disk_usage(into).free
    if needed > free:
        raise OSError(f"{needed / 1e9:.1f} GB unpacked, but {into} has {free / 1e9:.1f} GB left")


def _innermost(folder: Path) -> Path:
    """Many archives hold one folder that holds all: `photos/train/...`."""
    inside = [p for p in folder.iterdir() if not p.name.startswith((".", "__MACOSX"))]
    if len(inside) == 1 and inside[0].is_dir() and any(p.is_dir() for p in inside[0].iterdir()):
        return _innermost(inside[0])
    return folder
