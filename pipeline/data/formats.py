"""What a file is that is not read as an image, and how to make an image of it."""

from collections.abc import Mapping
from pathlib import Path

from PIL.TiffImagePlugin import ImageFileDirectory_v2

from pipeline.data.heif import brands, is_heif
from pipeline.data.image_file import open_image_file

RAW_SUFFIXES = (
    *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".iiq", ".kdc", ".mef", ".mos", ".mrw"),
    *(".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"),
)
"""Photos as cameras measure them: most are TIFF files whose first picture is a small preview."""
RAW = "a camera's raw photo: develop it to JPEG or TIFF, as with darktable-cli or dcraw -T"
DEEP_PLANAR = (
    "a TIFF of 16 bits in separate planes: write its channels together, as with gdal_translate -co INTERLEAVE=PIXEL"
)
_DNG_VERSION, _SUB_IFDS, _SUBFILE, _BITS, _BANDS, _PLANES, _NODATA = 50706, 330, 254, 258, 277, 284, 42113

_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x00\x05\x16\x07", "AppleDouble: what macOS keeps beside a file"),
    (0, b"version https://git-lfs", "a Git LFS pointer: fetch the file itself with `git lfs pull`"),
    (0, b"/annex/objects/", "a git-annex pointer: fetch the file itself with `git annex get`"),
    (128, b"DICM", "DICOM: convert it to PNG, as with dcmj2pnm +on or pydicom"),
    (0, b"\xff\x0a", "JPEG XL: convert it, as with djxl x.jxl x.png"),
    (0, b"\x00\x00\x00\x0cJXL ", "JPEG XL: convert it, as with djxl x.jxl x.png"),
    (344, b"n+1\x00", "NIfTI: write its slices as PNG, as with nibabel"),
    (344, b"ni1\x00", "NIfTI: write its slices as PNG, as with nibabel"),
    (0, b"NRRD", "NRRD: write its slices as PNG, as with SimpleITK"),
    (0, b"ZISRAWFILE", "a microscope's CZI: export it as TIFF"),
    (0, b"SIMPLE  =", "FITS: convert it to TIFF, as with astropy"),
    (0, b"8BPS", "Photoshop: export it as PNG"),
    (0, b"gimp xcf", "GIMP: export it as PNG"),
    (0, b"DDS ", "DDS: convert it to PNG, as with ImageMagick"),
    (0, b"\x00\x00\x01\x00", "an icon (ICO): convert it to PNG, as with ImageMagick"),
    (0, b"\x0a\x05\x01", "PCX: convert it to PNG, as with ImageMagick"),
    (0, b"\x76\x2f\x31\x01", "OpenEXR: convert it to 16-bit PNG, as with ImageMagick"),
    (0, b"#?RADIANCE", "Radiance HDR: convert it to 16-bit PNG, as with ImageMagick"),
    (0, b"qoif", "QOI: convert it to PNG, as with ImageMagick"),
    (0, b"FLIF", "FLIF: convert it to PNG, as with flif -d"),
    (0, b"BPG\xfb", "BPG: convert it to PNG, as with bpgdec"),
    (0, b"II\xbc\x01", "JPEG XR: convert it to PNG, as with JxrDecApp"),
    (0, b"AT&TFORM", "DjVu: convert its pages to TIFF, as with ddjvu"),
    (0, b"FUJIFILMCCD-RAW", RAW),
    (0, b"IIRO", RAW),
    (0, b"IIRS", RAW),
    (0, b"MMOR", RAW),
    (0, b"IIU\x00", RAW),
    (0, b"FOVb", RAW),
    (0, b"\x00MRM", RAW),
    (6, b"HEAPCCDR", RAW),
    (8, b"CR\x02\x00", RAW),
    (0, b"II+\x00", "BigTIFF: write it as TIFF, as with gdal_translate -co BIGTIFF=NO"),
    (0, b"MM\x00+", "BigTIFF: write it as TIFF, as with gdal_translate -co BIGTIFF=NO"),
    (0, b"%PDF", "PDF: convert its pages to PNG, as with pdftoppm -png"),
    (0, b"%!PS", "PostScript or EPS: convert it to PNG, as with gs -sDEVICE=png16m"),
    (0, b"\xc5\xd0\xd3\xc6", "EPS: convert it to PNG, as with gs -sDEVICE=png16m"),
    (0, b"\x93NUMPY", "a NumPy array: write it as PNG or TIFF, as with PIL.Image.fromarray(...).save"),
    (0, b"\x89HDF\r\n\x1a\n", "HDF5: write its images as PNG, as with h5py and PIL"),
    (0, b"MATLAB", "a MATLAB file: write its images as PNG, as with scipy.io.loadmat and PIL"),
    (0, b"\x1a\x45\xdf\xa3", "a video (Matroska or WebM): write its frames as JPEG, as with ffmpeg"),
    (0, b"\x00\x00\x01\xba", "a video (MPEG): write its frames as JPEG, as with ffmpeg"),
    (0, b"\x00\x00\x01\xb3", "a video (MPEG): write its frames as JPEG, as with ffmpeg"),
    (0, b"FLV\x01", "a video (FLV): write its frames as JPEG, as with ffmpeg"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "a video (WMV): write its frames as JPEG, as with ffmpeg"),
    (8, b"AVI ", "a video (AVI): write its frames as JPEG, as with ffmpeg"),
    (8, b"WAVE", "sound (WAV)"),
    (0, b"ID3", "sound (MP3)"),
    (0, b"PK\x03\x04", "a zip archive: give it as data.root, or unpack it"),
    (0, b"Rar!", "a RAR archive: unpack it"),
    (0, b"7z\xbc\xaf", "a 7z archive: unpack it"),
    (0, b"\x1f\x8b", "packed by gzip: unpack it"),
    (0, b"BZh", "packed by bzip2: unpack it"),
    (0, b"\xfd7zXZ", "packed by xz: unpack it"),
    (0, b"\x28\xb5\x2f\xfd", "packed by zstd: unpack it"),
    (257, b"ustar", "a tar archive: give it as data.root, or unpack it"),
    (0, b"SQLite format 3", "an SQLite database"),
    (0, b"PAR1", "a table (Parquet)"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a document of Microsoft Office"),
    (0, b"\x7fELF", "a program"),
    (0, b"MZ", "a program of Windows"),
)
"""Where a format's mark is, the mark, and what the file is."""
_BY_SUFFIX = {
    ".cur": "a cursor (CUR): convert it to PNG, as with ImageMagick",
    ".tga": "TGA: convert it to PNG, as with ImageMagick",
    ".pcx": "PCX: convert it to PNG, as with ImageMagick",
    ".dcm": "DICOM without its mark: convert it to PNG, as with pydicom",
    ".svg": "SVG: convert it to PNG, as with rsvg-convert",
    ".wmf": "WMF: convert it to PNG",
    ".emf": "EMF: convert it to PNG",
    ".pct": "PICT: convert it to PNG",
}


def identify(path: Path) -> str:
    """What a file is that no decoder recognises, and what to do with it."""
    with open_image_file(path) as file:
        start = file.read(512)
    if is_heif(path):
        return "damaged HEIC"
    known = _by_brand(start) or _by_signature(start) or _tiff(path, start)
    return known or _text(start) or _by_suffix(path) or "not an image"


def is_raw(path: Path, tags: Mapping[int, object]) -> bool:
    """Whether a TIFF file with these tags is a camera's raw photo, of which only a preview would be read."""
    if path.suffix.lower() in RAW_SUFFIXES or _DNG_VERSION in tags:
        return True
    kind = tags.get(_SUBFILE)
    return isinstance(kind, int) and bool(kind & 1) and _SUB_IFDS in tags


def is_deep_planar(tags: Mapping[int, object]) -> bool:
    """Whether a TIFF file with these tags keeps each channel of 16 bits in a plane of its own: Pillow misreads that."""
    bits = tags.get(_BITS)
    return tags.get(_PLANES) == 2 and isinstance(bits, tuple) and len(bits) > 1 and max(bits) > 8


def num_bands(tags: Mapping[int, object]) -> int:
    """How many bands a TIFF file with these tags has; 0 where it does not say it."""
    bands = tags.get(_BANDS)
    return bands if isinstance(bands, int) else 0


def nodata_of(tags: Mapping[int, object]) -> float | None:
    """The value that stands for no data, where a TIFF file names one as GDAL does."""
    try:
        return float(str(tags[_NODATA]).strip("\0 "))
    except (KeyError, ValueError):
        return None


def _by_brand(start: bytes) -> str:
    found = brands(start)
    if not found or found[0] in (b"avif", b"avis"):
        return "damaged AVIF" if found else ""
    if found[0] == b"crx ":
        return f"not an image that is read but {RAW}"
    kind = found[0].decode("ascii", "replace").strip()
    return f"not an image but a video ({ascii(kind)[1:-1]}): write its frames as JPEG, as with ffmpeg"


def _by_signature(start: bytes) -> str:
    found = next((name for at, mark, name in _SIGNATURES if start.startswith(mark, at)), "")
    return f"not an image that is read but {found}" if found else ""


def _tiff(path: Path, start: bytes) -> str:
    """What is unusual in a TIFF file."""
    if not start.startswith((b"II*\0", b"MM\0*")):
        return ""
    tags = _read_tags(path)
    if is_raw(path, tags):
        return f"not an image that is read but {RAW}"
    if (bands := num_bands(tags)) == 2 or bands > 3:
        return (
            f"not an image that is read but a TIFF with {bands} bands: choose one or three and write them as gray or "
            "RGB, as with gdal_translate -b 4 -b 3 -b 2 -ot Byte -scale"
        )
    return "a damaged TIFF, or of a kind that is not read: write it as 8-bit RGB, as with gdal_translate or ImageMagick"


def _read_tags(path: Path) -> dict[int, object]:
    """The tags of a TIFF file's first picture; none where they are damaged."""
    try:
        with open_image_file(path) as file:
            tags = ImageFileDirectory_v2(file.read(8))
            file.seek(tags.next)
            tags.load(file)
            return dict(tags)
    except Exception:  # damaged files make Pillow raise anything
        return {}


def _text(start: bytes) -> str:
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "not an image but an HTML page"
    if text.startswith((b"<svg", b"<?xml")):
        return "not a pixel image but SVG or XML: convert it to PNG, as with rsvg-convert"
    printable = bool(start) and all(b >= 32 or b in b"\t\r\n\f" for b in start)
    return "not an image but text" if printable else ""


def _by_suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix in RAW_SUFFIXES:
        return f"not an image that is read but {RAW}"
    name = _BY_SUFFIX.get(suffix, "")
    return f"not an image that is read but {name}" if name else ""
