"""Unpack zip and tar archives, never outside the given folder."""

import shutil
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

from pipeline.files import atomic_file
from pipeline.settings import SettingsError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")


def is_archive(path: Path) -> bool:
    """Whether the name is that of an archive."""
    return path.name.lower().endswith(SUFFIXES)


def unpack(archive: Path, into: Path) -> Path:
    """Unpack into a new folder and return the folder that holds the splits or classes.

    That is `into`, or, if everything in the archive is in one folder, that folder. Raises SettingsError for an archive
    that is damaged, does not fit on the disk, or has members that would land outside `into`.
    """
    into.mkdir(parents=True)
    try:
        if archive.name.lower().endswith(".zip"):
            _unzip(archive, into)
        else:
            _untar(archive, into)
    except (zipfile.BadZipFile, tarfile.TarError, OSError, EOFError, RuntimeError, NotImplementedError) as error:
        what = "it is damaged, or not an archive" if isinstance(error, tarfile.ReadError) else error
        raise SettingsError(f"data.root={archive} cannot be unpacked: {what}; fetch it again, or unpack it by hand and "
                            "give the folder") from None  # fmt: skip
    return _innermost(into)


def _unzip(archive: Path, into: Path) -> None:
    with zipfile.ZipFile(archive) as file:
        members = [m for m in file.infolist() if not m.is_dir()]
        for member in members:
            _check_name(member.filename)
        _check_space(sum(m.file_size for m in members), into)
        for member in members:
            file.extract(member, into)


def _untar(archive: Path, into: Path) -> None:
    """Unpack regular files only. Links are refused: a chain of them can lead out of any folder (CVE-2025-4517)."""
    with tarfile.open(archive) as file:
        members = file.getmembers()
        for member in members:
            _check_name(member.name)
            if not (member.isreg() or member.isdir()):
                raise OSError(f"its member {member.name!r} is a link or a device, and only files are unpacked")
        _check_space(sum(m.size for m in members), into)
        for member in (m for m in members if m.isreg()):
            content, target = file.extractfile(member), into / member.name
            assert content is not None, member.name
            target.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(target, flush=False) as unpacked:
                shutil.copyfileobj(content, unpacked)


def _check_name(name: str) -> None:
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts:
        raise OSError(f"its member {name!r} reaches outside")


def _check_space(needed: int, into: Path) -> None:
    free = shutil.disk_usage(into).free
    if needed > free:
        raise OSError(f"{needed / 1e9:.1f} GB unpacked, but {into} has {free / 1e9:.1f} GB left")


def _innermost(folder: Path) -> Path:
    """Skip outer folders: many archives hold everything in one, as in `photos/train/...`."""
    inside = [p for p in folder.iterdir() if not p.name.startswith((".", "__MACOSX"))]
    if len(inside) == 1 and inside[0].is_dir() and any(p.is_dir() for p in inside[0].iterdir()):
        return _innermost(inside[0])
    return folder
