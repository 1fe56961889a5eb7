"""An ICC profile made by hand, and what it means by formula."""

import struct

import numpy as np
from numpy.typing import NDArray

GAMMA = 2.2
ADOBE_RGB_TO_XYZ_D50 = np.array([[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]])
"""Columns are the primaries (Adobe RGB (1998) colour image encoding, section 4.3.5.3, adapted to D50)."""
SRGB_TO_XYZ_D50 = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])


def wide_profile() -> bytes:
    """A version 2 display profile with the primaries of Adobe RGB and a plain gamma."""

    def xyz(values: NDArray[np.float64]) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(v * 65536)) for v in values)

    name = b"Wide test gamut\0"
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(GAMMA * 256)) + b"\0\0"
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(name)) + name + bytes(78),
        b"cprt": b"text\0\0\0\0none\0\0\0\0",
        b"wtpt": xyz(np.array([0.9642, 1.0, 0.8249])),
        b"rTRC": curve,
        b"gTRC": curve,
        b"bTRC": curve,
    }
    for channel, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), ADOBE_RGB_TO_XYZ_D50.T, strict=True):
        tags[channel] = xyz(column)
    offset, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for tag, content in tags.items():
        content += bytes(-len(content) % 4)
        table += tag + struct.pack(">II", offset + len(body), len(content))
        body += content
    size = offset + len(body)
    header = struct.pack(">I4sI4s4s4s", size, b"none", 0x02200000, b"mntr", b"RGB ", b"XYZ ")
    header += struct.pack(">6H4s", 2024, 1, 1, 0, 0, 0, b"acsp") + bytes(28)
    header += struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def to_srgb(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """What `pixels` [..., 3] under the profile are in sRGB, 0..255."""
    linear = (pixels / 255.0) ** GAMMA @ (np.linalg.inv(SRGB_TO_XYZ_D50) @ ADOBE_RGB_TO_XYZ_D50).T
    linear = linear.clip(0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(encoded * 255)
