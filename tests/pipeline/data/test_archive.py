"""Archives are unpacked whole or not at all, and only below their folder."""

import bz2
import gzip
import io
import lzma
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from pipeline.data import archive_entries
from pipeline.data.archive import unpack
from pipeline.files import DiskFullError
from pipeline.settings import SettingsError, Unpack

LIMITS = Unpack(max_gb=1.0, max_files=100, max_ratio=200.0)
FILES = {"cat/1.png": b"cat" * 500, "dog/2.png": bytes(range(256)) * 9, "dog/3.png": b"", "dog/4.png": b"last"}


def tar_of(files: dict[str, bytes] = FILES, **fields: Any) -> bytes:
    """A tar archive; `fields` are set on every member."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            for field, value in fields.items():
                setattr(member, field, value)
            archive.addfile(member, io.BytesIO(data) if member.isreg() else None)
    return buffer.getvalue()


def zip_of(files: dict[str, bytes] = FILES, **fields: Any) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            member = zipfile.ZipInfo(name)
            member.compress_type = zipfile.ZIP_DEFLATED
            for field, value in fields.items():
                setattr(member, field, value)
            archive.writestr(member, data)
    return buffer.getvalue()


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Path]:
    """A folder to unpack in. Nothing may be left beside what was unpacked, nor outside."""
    box = tmp_path / "box"
    box.mkdir()
    yield box
    assert {p.name for p in box.iterdir()} <= {"images"}
    assert {p.name for p in tmp_path.iterdir()} <= {"box", "x.zip", "x.tar"}


def unpacked(box: Path, data: bytes, limits: Unpack = LIMITS) -> dict[str, bytes]:
    """Unpack an archive of this content; returns its files."""
    file = box.parent / ("x.zip" if data[:2] == b"PK" else "x.tar")
    file.write_bytes(data)
    unpack(file, box / "images", limits)
    return {p.relative_to(box / "images").as_posix(): p.read_bytes() for p in box.rglob("*") if p.is_file()}


def refused(box: Path, data: bytes, said: str, limits: Unpack = LIMITS) -> None:
    with pytest.raises(SettingsError, match=f"data.root=.*/x.* cannot be unpacked: .*{said}"):
        unpacked(box, data, limits)
    assert list(box.iterdir()) == []


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_tar_archives_give_their_files(box: Path, pack: Callable[[bytes], bytes]) -> None:
    files = {**FILES, "dog/" + "n" * 255: b"long", "./cat/./5.png": b"dots"}
    assert unpacked(box, pack(tar_of(files))) == {**FILES, "dog/" + "n" * 255: b"long", "cat/5.png": b"dots"}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zip_archives_give_their_files(box: Path, method: int) -> None:
    class Pipe(io.BytesIO):  # what is written to a pipe has its sizes after each file
        def seekable(self) -> bool:
            return False

        def seek(self, *_: object) -> int:
            raise OSError

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", method) as archive:
        archive.mkdir("cat")
        for name, data in FILES.items():
            archive.writestr(name, data)
    assert unpacked(box, pipe.getvalue()) == FILES


def test_back_slashes_in_a_zip_are_folders(box: Path) -> None:
    data = zip_of({"cat/1.png": b"x"}).replace(b"cat/1.png", b"cat\\1.png")
    assert unpacked(box, data) == {"cat/1.png": b"x"}


NAMES = [
    ("../x", "reaches outside"),
    ("a/../../x", "reaches outside"),
    ("/tmp/x", "reaches outside"),
    ("C:/x", "reaches outside"),
    ("c:x", "reaches outside"),
    ("a/\x1b[2Jx", "has a control character"),
    ("a/\n", "has a control character"),
    ("a/\x9bx", "has a control character"),
    ("a/" + "n" * 256, "more than 255 bytes"),
    ("a/" + "é" * 128, "more than 255 bytes"),
    ("a/" * 70 + "x", "more than 64 folders deep"),
    (".", "has no name"),
]


@pytest.mark.parametrize(("name", "said"), NAMES)
@pytest.mark.parametrize("pack", [tar_of, zip_of])
def test_names_are_checked_before_anything_is_written(
    box: Path, name: str, said: str, pack: Callable[[dict[str, bytes]], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.data.archive._write", None)
    refused(box, pack({"a/good": b"1", name: b"2"}), said)


@pytest.mark.parametrize("pack", [tar_of, zip_of])
def test_a_name_is_shown_without_its_escapes(box: Path, pack: Callable[[dict[str, bytes]], bytes]) -> None:
    refused(box, pack({"a/\x1b[2J": b""}), r"member 'a/\\x1b\[2J'")


def test_a_zero_in_a_name_is_refused(box: Path) -> None:
    refused(box, zip_of({"cat.png.exe": b"x"}).replace(b"cat.png.exe", b"cat.png\0exe"), "has a control character")


def tar_of_both(names: tuple[str, str]) -> bytes:
    return tar_of({names[0]: b"1"})[:1024] + tar_of({names[1]: b"2"})


def zip_of_both(names: tuple[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return buffer.getvalue()


@pytest.mark.parametrize("pack", [tar_of_both, zip_of_both])
@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("a/x", "a/x"), "'a/x' is in it twice"),
        (("a/x", "a/./x"), "is in it twice"),
        (("a", "a/x"), "'a/x' needs a folder where its member 'a' is a file"),
        (("a/x", "a"), "'a' is a file and a folder"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_that_collide_are_refused(
    box: Path, names: tuple[str, str], said: str, pack: Callable[[tuple[str, str]], bytes]
) -> None:
    refused(box, pack(names), said)


@pytest.mark.parametrize("pack", [tar_of, zip_of])
def test_names_in_another_case_are_two_files_or_an_error(
    box: Path, pack: Callable[[dict[str, bytes]], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    both = {"a/x.png": b"1", "a/X.png": b"2"}
    assert unpacked(box, pack(both)) == both
    shutil.rmtree(box / "images")
    exists = Path.exists  # on a disk that takes both for one
    monkeypatch.setattr(Path, "exists", lambda path: exists(path) or exists(path.with_name(path.name.lower())))
    refused(box, pack(both), "takes for one")


LINKS = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]


@pytest.mark.parametrize("kind", LINKS)
def test_a_link_or_device_in_a_tar_is_refused(box: Path, kind: bytes) -> None:
    refused(box, tar_of({"a/x": b""}, type=kind, linkname="/etc/passwd"), "'a/x' is a link or a device")


@pytest.mark.parametrize("fields", [{"type": b"S"}, {"pax_headers": {"GNU.sparse.major": "1"}}, {"type": b"M"}])
def test_a_sparse_or_unknown_member_is_refused(box: Path, fields: dict[str, Any]) -> None:
    refused(box, tar_of({"a/x": b""}, **fields), "'a/x' is (sparse|of the kind)")


def test_a_link_in_a_zip_is_refused(box: Path) -> None:
    refused(box, zip_of({"a/x": b"/etc/passwd"}, external_attr=0o120777 << 16, create_system=3), "'a/x' is a link")


def test_a_chain_of_links_leads_nowhere(box: Path) -> None:
    """What got past Python's own filter (CVE-2025-4517): a link through folders too deep to be resolved."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for i, (name, target) in enumerate([("a" * 200, ""), ("b", "a" * 200 + "/../.."), ("b/escaped", "")]):
            member = tarfile.TarInfo(name)
            member.type = (tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.REGTYPE)[i]
            member.linkname = target
            archive.addfile(member)
    refused(box, buffer.getvalue(), "'b' is a link")


def header(name: bytes, size: bytes, kind: bytes = b"0") -> bytes:
    """A tar header with any size field of 12 bytes, and a correct checksum."""
    plain = name.ljust(100, b"\0") + b"0000644\0" * 3 + size + b"0" * 11 + b"\0" + b" " * 8 + kind
    plain = (plain.ljust(257, b"\0") + b"ustar\x0000").ljust(512, b"\0")
    return plain[:148] + b"%06o\0 " % sum(plain) + plain[156:]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (header(b"x", b"\xff" * 12), "has the size -1"),
        (header(b"x", b"\xff" * 11 + b"\0"), "has the size -256"),  # CVE-2025-8194: tarfile goes back for ever
        (header(b"x", b"\x80" + b"\xff" * 11), "is cut off"),
        (header(b"x", b"77777777777\0", b"x"), "a header of 8589934591 bytes"),
        (header(b"x", b"00000100000\0", b"x") + b"1" * 2**15, "damaged header"),  # CVE-2024-6232: takes minutes
        (header(b"x", b"00000000011\0", b"x") + b"9 path=\n".ljust(512, b"\0"), "damaged header"),
        (header(b"x", b"00000000016\0", b"g") + b"14 path=all\n\0\0".ljust(512, b"\0"), "damaged header"),
        (header(b"x", b"00000000015\0", b"g") + b"13 path=all!\n".ljust(512, b"\0") + bytes(1024), "names all files"),
        (header(b"x", b"00000000013\0", b"x") + b"11 size=-9\n".ljust(512, b"\0") + header(b"y", b"0" * 12), "size -9"),
        (header(b"x", b"00000000014\0", b"x") + b"12 path=y.x\n".ljust(512, b"\0") + bytes(1024), "last file is miss"),
        (bytes(10240), "it is empty"),
        (b"", "it is cut off"),
        (b"anything" * 200, "damaged, or no archive"),
    ],
    ids=range(13),
)
def test_headers_that_lie_are_refused(box: Path, data: bytes, said: str) -> None:
    refused(box, data, said)


PLAIN = tar_of()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (PLAIN[:2048] + b"\1" + PLAIN[2049:], "damaged header at byte 2048"),
        (PLAIN[: PLAIN.rindex(b"last") + 512], "mark at its end is missing"),
        (PLAIN[: PLAIN.rindex(b"last") + 4], "cut off"),
        (PLAIN[:700], "cut off"),
        (PLAIN + PLAIN, "more follows after its end"),
        (PLAIN[:-1] + b"x", "more follows after its end"),
        (PLAIN[:2048] + bytes(512) + PLAIN[2048:], "more follows after its end"),
    ],
    ids=range(7),
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_no_member_of_a_damaged_tar_vanishes(box: Path, data: bytes, said: str, pack: Callable[[bytes], bytes]) -> None:
    refused(box, pack(data), said)


def flipped(data: bytes, at: int) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("damage", [lambda d: flipped(d, -6), lambda d: d[:-3], lambda d: flipped(d, len(d) // 2)])
def test_packed_tars_are_read_to_their_checksum(
    box: Path, pack: Callable[[bytes], bytes], damage: Callable[[bytes], bytes]
) -> None:
    refused(box, damage(pack(PLAIN)), "damaged")


ZIP = zip_of()
END = ZIP.index(b"PK\x05\x06")
DIRECTORY = ZIP.index(b"PK\x01\x02")
LAST = ZIP.rindex(b"PK\x01\x02")


def shorter_directory() -> bytes:
    """A directory that names one member less: Python's zipfile believes it."""
    end = bytearray(ZIP[END:])
    struct.pack_into("<HHL", end, 8, 3, 3, LAST - DIRECTORY)
    return ZIP[:LAST] + bytes(end)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (flipped(ZIP, 45), "member 'cat/1.png': .*damaged"),
        (flipped(ZIP, 14), "not what its directory says"),
        (flipped(ZIP, 32), "member 'cat/1.png': .*damaged"),
        (flipped(ZIP, DIRECTORY + 16), "not what its directory says"),
        (shorter_directory(), "belong to no member of its directory"),
        (ZIP[: -22 - 3] + ZIP[-22:], "damaged|belong"),
        (ZIP + ZIP, "belong to no member"),
        (ZIP + b"x", "more follows"),
        (ZIP[:-1], "damaged"),
        (b"PK\x03\x04 or not", "damaged"),
        (flipped(flipped(ZIP, 6), DIRECTORY + 8), "'cat/1.png' is encrypted"),
        (zip_of({"a/": b"content"}), "folder with content"),
    ],
    ids=range(12),
)
def test_damaged_zips_are_refused(box: Path, data: bytes, said: str) -> None:
    refused(box, data, said)


def test_members_that_share_bytes_are_refused(box: Path) -> None:
    """A bomb: many members of the directory are the same bytes of the file."""
    entry = bytearray(ZIP[DIRECTORY : ZIP.index(b"PK\x01\x02", DIRECTORY + 1)])
    end = bytearray(ZIP[END:])
    struct.pack_into("<HHL", end, 8, 5, 5, END - DIRECTORY + len(entry))
    refused(box, ZIP[:END] + bytes(entry) + bytes(end), "belong to two of its members")


def test_a_size_that_lies_is_refused(box: Path) -> None:
    claims = struct.pack("<L", len(FILES["cat/1.png"]))
    assert ZIP.count(claims) == 2
    for other in (10, 10_000_000):
        refused(box, ZIP.replace(claims, struct.pack("<L", other)), "member 'cat/1.png'")


def zeros(size: int) -> bytes:
    """A packed tar of one file of zeros whose header claims the true size."""
    return gzip.compress(tar_of({"a/x": bytes(size)}))


@pytest.mark.parametrize("pack", [zeros, lambda size: zip_of({"a/x": bytes(size)})])
@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (Unpack(max_gb=0.002, max_files=9, max_ratio=1e9), r"more than data\.unpack\.max_gb=0\.002 GB"),
        (Unpack(max_gb=1.0, max_files=9, max_ratio=200.0), r"more than data\.unpack\.max_ratio=200 times its size"),
    ],
)
def test_a_bomb_is_stopped_while_it_is_unpacked(
    box: Path, pack: Callable[[int], bytes], limits: Unpack, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_entries, "_SMALL_BYTES", 1_000_000)
    refused(box, pack(3_000_000), said, limits)
    assert unpacked(box, pack(900_000), limits)


def test_too_many_files_are_refused(box: Path) -> None:
    limits = Unpack(max_gb=1.0, max_files=3, max_ratio=200.0)
    for data in (PLAIN, ZIP):
        refused(box, data, r"more than data\.unpack\.max_files=3", limits)


def test_a_disk_that_is_too_small_is_named(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(9, 0, 9))
    for data in (PLAIN, ZIP):
        refused(box, data, "it needs 0.0 GB, but .* has 0.0 GB left")


ERRORS = [
    (zlib.error("bad"), "member 'cat/1.png': it is damaged"),
    (struct.error("bad"), "it is damaged"),
    (lzma.LZMAError("bad"), "it is damaged"),
    (RecursionError("deep"), "it is damaged"),
    (MemoryError(), "not enough memory"),
    (DiskFullError(Path("/disk/x"), 9), "no space left: 9 bytes or more are needed"),
]


@pytest.mark.parametrize(("error", "said"), ERRORS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("data", [PLAIN, ZIP], ids=["tar", "zip"])
def test_whatever_a_decoder_raises_is_one_error_and_nothing_is_left(
    box: Path, error: Exception, said: str, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(lines: IO[bytes], _: object) -> None:
        del lines
        raise error

    monkeypatch.setattr("pipeline.data.archive._write", fail)
    refused(box, data, said)


def test_an_interruption_leaves_nothing(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.data.archive._write", stop)
    with pytest.raises(KeyboardInterrupt):
        unpacked(box, PLAIN)
    assert list(box.iterdir()) == []


def test_what_was_left_of_a_killed_run_is_not_taken_for_done(box: Path) -> None:
    assert unpacked(box, PLAIN) == FILES
    file = box.parent / "x.tar"
    with pytest.raises(SettingsError, match="cannot be unpacked"):
        unpack(file, box / "images", LIMITS)
