"""A file in a format that is not read is called by its name, with the way to an image."""

import io
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.decode import DecodeError, decode
from pipeline.data.formats import RAW_SUFFIXES
from tests.pipeline.data.cases import picture, saved
from tests.pipeline.data.deep_files import write_tiff
from tests.pipeline.data.heic import heic


def ftyp(*brands: bytes) -> bytes:
    """The beginning of a file of the family of MP4."""
    box = b"ftyp" + brands[0] + bytes(4) + b"".join(brands[1:])
    return (len(box) + 4).to_bytes(4, "big") + box + bytes(80)


def npy() -> bytes:
    np.save(buffer := io.BytesIO(), np.zeros(3))
    return buffer.getvalue()


FILES = [
    (
        "photo.jpg",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\n",
        "Git LFS .*`git lfs pull`",
    ),
    ("photo.jpg", b"/annex/objects/SHA256E-s1--aa.jpg\n", "git-annex .*`git annex get`"),
    ("scan", bytes(128) + b"DICM" + bytes(70), "DICOM: convert it"),
    ("scan.dcm", bytes(300), "DICOM without its mark"),
    ("new.jxl", b"\xff\x0a" + bytes(80), "JPEG XL: convert it"),
    ("box.jxl", b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(80), "JPEG XL: convert it"),
    ("brain.nii", bytes(344) + b"n+1\0", "NIfTI: write its slices"),
    ("brain.nii.gz", b"\x1f\x8b\x08" + bytes(20), "packed by gzip"),
    ("x.tga", saved(kind="TGA"), "TGA: convert it"),
    ("x.ico", saved(kind="ICO"), "an icon"),
    ("x.pcx", saved(kind="PCX"), "PCX: convert it"),
    ("x.dds", saved(kind="DDS"), "DDS: convert it"),
    ("x.psd", b"8BPS\0\1" + bytes(80), "Photoshop: export it"),
    ("x.svg", b"\xef\xbb\xbf<svg xmlns='...'></svg>", "SVG or XML: convert it"),
    ("x.pdf", b"%PDF-1.7\n", "PDF: convert its pages"),
    ("x.eps", saved(kind="EPS"), "EPS: convert it"),
    ("x.npy", npy(), "NumPy array: write it as PNG"),
    ("x.h5", b"\x89HDF\r\n\x1a\n" + bytes(80), "HDF5: write its images"),
    ("x.fits", b"SIMPLE  =                    T", "FITS"),
    ("x.exr", b"\x76\x2f\x31\x01" + bytes(80), "OpenEXR"),
    ("live.mov", ftyp(b"qt  "), r"a video \(qt\): write its frames .* ffmpeg"),
    ("clip.mp4", ftyp(b"isom", b"mp42"), r"a video \(isom\)"),
    ("clip.avi", b"RIFF" + bytes(4) + b"AVI LIST", r"a video \(AVI\)"),
    ("clip.webm", b"\x1a\x45\xdf\xa3" + bytes(80), r"a video \(Matroska"),
    ("photo.cr3", ftyp(b"crx "), "camera's raw photo: develop it"),
    ("photo.raf", b"FUJIFILMCCD-RAW 0201", "camera's raw photo: develop it"),
    ("photo.orf", b"IIRO" + bytes(80), "camera's raw photo: develop it"),
    ("burst.heic", ftyp(b"hevc"), "damaged HEIC"),
    ("ten.heic", ftyp(b"heim"), "damaged HEIC"),
    ("other.heic", ftyp(b"abcd", b"msf1", b"hevc"), "damaged HEIC"),
    ("cut.avif", ftyp(b"avif", b"mif1"), "damaged"),
    ("big.tif", b"II+\0" + bytes(80), "BigTIFF: write it as TIFF"),
    ("bad.tif", b"II*\0" + bytes(80), "a damaged TIFF, or of a kind"),
    ("photos.zip", b"PK\x03\x04" + bytes(80), "a zip archive"),
    ("photos.rar", b"Rar!\x1a\x07" + bytes(80), "a RAR archive"),
    ("unknown", bytes(range(1, 32)), "^not an image$"),
]


@pytest.mark.parametrize(("name", "data", "said"), FILES, ids=[f"{i}-{name}" for i, (name, _, _) in enumerate(FILES)])
def test_other_formats_are_named(
    tmp_path: Path, name: str, data: bytes, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DecodeError, match=said):
        decode(tmp_path / name, background="white")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("bands", "dtype"), [(13, np.uint16), (5, np.float32), (2, np.float32)])
def test_the_bands_of_a_tiff_are_counted(
    tmp_path: Path, bands: int, dtype: type, capfd: pytest.CaptureFixture[str]
) -> None:
    write_tiff(tmp_path / "x.tif", np.zeros((8, 8, bands), dtype))
    with pytest.raises(DecodeError, match=f"a TIFF with {bands} bands: "):
        decode(tmp_path / "x.tif", background="white")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("bands", "dtype"), [(4, np.uint8), (6, np.uint8), (4, np.uint16)])
def test_bands_that_are_left_out_are_told(tmp_path: Path, bands: int, dtype: type) -> None:
    write_tiff(tmp_path / "x.tif", np.full((8, 8, bands), 2**15 if dtype is np.uint16 else 128, dtype))
    assert f"the first 3 of {bands} bands" in decode(tmp_path / "x.tif", background="white").conversions


@pytest.mark.parametrize("suffix", RAW_SUFFIXES)
def test_the_preview_in_a_raw_photo_is_not_taken_for_it(tmp_path: Path, suffix: str) -> None:
    for name in (f"x{suffix}", f"X{suffix.upper()}"):
        picture(size=(16, 12)).save(tmp_path / name, "TIFF")
        with pytest.raises(DecodeError, match="camera's raw photo: develop it to JPEG or TIFF"):
            decode(tmp_path / name, background="white")


@pytest.mark.parametrize("tags", [{50706: b"\1\4\0\0"}, {254: 1, 330: 8}])
def test_a_raw_photo_is_known_by_its_content_too(tmp_path: Path, tags: dict[int, int | bytes]) -> None:
    write_tiff(tmp_path / "x.tif", np.zeros((12, 16, 3), np.uint8), more=tags)
    with pytest.raises(DecodeError, match="camera's raw photo"):
        decode(tmp_path / "x.tif", background="white")


def test_an_image_with_the_suffix_of_a_raw_photo_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.raw").write_bytes(saved())
    (tmp_path / "y.tif").write_bytes(saved(kind="TIFF"))
    for name in ("x.raw", "y.tif"):
        assert decode(tmp_path / name, background="white").image.size == (40, 32)


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"mif1", b"msf1"])
def test_a_photo_of_a_phone_is_known_by_any_of_its_brands(tmp_path: Path, brand: bytes) -> None:
    photo = heic()
    (tmp_path / "x.heic").write_bytes(photo[:8] + brand + photo[12:])
    assert decode(tmp_path / "x.heic", background="white").image.size == (64, 48)


def test_damaged_tiffs_print_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = bytearray(saved(kind="TIFF", size=(200, 200), compression="tiff_lzw"))
    data[8:80] = bytes(72)  # the beginning of its pixels
    (tmp_path / "x.tif").write_bytes(data)
    with pytest.raises(DecodeError, match="damaged"):
        decode(tmp_path / "x.tif", background="white")
    assert capfd.readouterr().err == ""
