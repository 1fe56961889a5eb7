"""Columns of text and of names, in a few bytes per row where Python's own objects take a hundred."""

from array import array
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

_PACKED = b"\xff"
"""Before a digest of 32 bytes. No text in UTF-8 holds this byte."""
_DIGEST_CHARS = 64


class Texts:
    """Different texts, such as paths and SHA-256 digests: one block of bytes, and where each text ends in it.

    A digest in lower-case hexadecimal takes half its length.
    """

    def __init__(self) -> None:
        self._block, self._ends = bytearray(), array("q", [0])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, row: int) -> str:
        """The text of a row, counted from 0."""
        packed = self._block[self._ends[row] : self._ends[row + 1]]
        return packed[1:].hex() if packed.startswith(_PACKED) else packed.decode(errors="surrogatepass")

    def extend(self, texts: Iterable[str]) -> None:
        """Add rows."""
        for text in texts:
            self._block += _pack(text)
            self._ends.append(len(self._block))


class Names:
    """Texts of which few are different, such as labels: each is stored once, and a row is its number."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._rows = array("i")
        self.names: list[str] = []
        """The different texts, in the order in which they came."""

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: int) -> str:
        """The text of a row, counted from 0."""
        return self.names[self._rows[row]]

    @property
    def numbers(self) -> NDArray[np.int32]:
        """[rows], which of `names` each row is."""
        return np.array(self._rows, dtype=np.int32)

    def number_of(self, name: str) -> int:
        """The number of a text; -1 if no row has it."""
        return self._numbers.get(name, -1)

    def extend(self, texts: Sequence[str]) -> None:
        """Add rows."""
        for name in dict.fromkeys(texts):
            if name not in self._numbers:
                self._numbers[name] = len(self.names)
                self.names.append(name)
        self._rows.extend([self._numbers[text] for text in texts])


def _pack(text: str) -> bytes:
    if len(text) == _DIGEST_CHARS:
        try:
            packed = bytes.fromhex(text)
        except ValueError:
            packed = b""
        if packed.hex() == text:
            return _PACKED + packed
    return text.encode(errors="surrogatepass")
