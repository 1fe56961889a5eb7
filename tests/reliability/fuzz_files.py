"""Damaged images and archives by the thousand: `python -m tests.reliability.fuzz_files --mutants 20000`.

An image is read or has a reason in the ledger. An archive gives all of its files, byte for byte, or one error that
names it, and then nothing is left of it. Nothing is written elsewhere or printed, and no case takes long.
"""

import argparse
import faulthandler
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipeline.data.archive import unpack
from pipeline.data.facts import look_at
from pipeline.settings import SettingsError, Unpack
from tests.reliability import mutants

LIMIT_S = 10.0
"""For one case. The slowest takes a tenth of a second on one core."""
LIMITS = Unpack(max_gb=0.1, max_files=1000, max_ratio=200)


@dataclass
class Tally:
    """How many cases ended how, and the slowest."""

    ends: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By kind of file and end: `read`, `rejected`, `unpacked`, `refused`, `unchecked`."""
    slowest_s: float = 0.0

    def count(self, kind: str, end: str, seconds: float) -> None:
        self.ends[kind, end] += 1
        self.slowest_s = max(self.slowest_s, seconds)


def fuzz(num_mutants: int, *, seed: int, folder: Path) -> Tally:
    """Try as many mutants, half images and half archives. Raises AssertionError, and whatever escapes."""
    tally, images, archives = Tally(), mutants.images(), mutants.archives()
    with _captured() as (said, terminal):
        for number in range(num_mutants):
            is_image = number % 2 == 0
            kinds = images if is_image else archives
            name = sorted(kinds)[number // 2 % len(kinds)]
            how, data = mutants.mutate(kinds[name], list(kinds.values()), np.random.default_rng([seed, number]))
            (folder / name).write_bytes(data)
            with _timed(f"mutant {number} of seed {seed}: {name}, {how}", terminal) as clock:
                end = _look(folder / name) if is_image else _unpack(folder / name, data)
                assert not (text := said()), text
            tally.count(name, end, clock.seconds)
            (folder / name).unlink()
    return tally


@dataclass
class _Clock:
    seconds: float = 0.0


@contextmanager
def _timed(case: str, terminal: int) -> Iterator[_Clock]:
    """Check that the block is quick; end the process with a traceback if it hangs in C. Errors get the case's name."""
    clock, began = _Clock(), time.monotonic()
    faulthandler.dump_traceback_later(6 * LIMIT_S, exit=True, file=terminal)
    try:
        yield clock
        clock.seconds = time.monotonic() - began
        assert clock.seconds < LIMIT_S, f"took {clock.seconds:.1f} s"
    except BaseException as error:
        error.add_note(case)
        raise
    finally:
        faulthandler.cancel_dump_traceback_later()


def _look(file: Path) -> str:
    facts = look_at(file, background="white")
    assert facts.problem.isprintable(), facts.problem
    if facts.problem:
        return "rejected"
    assert facts.width * facts.height
    return "read"


def _unpack(file: Path, data: bytes) -> str:
    box = file.parent / "box"
    box.mkdir()
    try:
        unpack(file, box / "images", LIMITS)
    except SettingsError as refusal:
        said = str(refusal)
    else:
        said = ""
    if said:
        assert str(file) in said
        assert list(box.iterdir()) == []
    else:
        assert [p.name for p in box.iterdir()] == ["images"]
    end = "refused" if said else _compare(box / "images", file.name, data)
    _remove(box)
    assert sorted(file.parent.iterdir()) == [file]
    return end


def _compare(folder: Path, name: str, data: bytes) -> str:
    """The unpacked files must be those that were packed. Content in a plain tar has no checksum, so none can tell."""
    found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    wanted = mutants.contents()
    if found == wanted:
        return "unpacked"
    assert name.endswith(".tar"), sorted(found)
    assert found == walk_tar(data), sorted(found)
    return "unchecked"


def walk_tar(data: bytes) -> dict[str, bytes]:
    """What a tar archive says that it holds, by its headers alone, as the format describes them (POSIX ustar)."""
    found: dict[str, bytes] = {}
    at, longer = 0, None
    while any(header := data[at : at + 512]):
        assert sum(header) - sum(header[148:156]) + 8 * 32 == int(header[148:156].split(b"\0")[0], 8)
        size, kind = int(header[124:136].split(b"\0")[0], 8), header[156:157]
        content = data[at + 512 : at + 512 + size]
        if kind in b"Lx":
            longer = content.rstrip(b"\0").rpartition(b"path=")[2].strip(b"\n")
        elif kind in b"0\0":
            name, prefix = header[:100].rstrip(b"\0"), header[345:500].rstrip(b"\0")
            found[(longer or (prefix + b"/" + name if prefix else name)).decode(errors="surrogateescape")] = content
        longer = longer if kind in b"Lx" else None
        at += 512 - -size // 512 * 512
    return found


def _remove(box: Path) -> None:
    for path in sorted(box.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    box.rmdir()


@contextmanager
def _captured() -> Iterator[tuple[Callable[[], str], int]]:
    """Keep what is written to standard error, by libraries in C too.

    Gives a function that returns and empties it, and a descriptor of the true standard error.
    """
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:

        def said() -> str:
            file.seek(0)
            text = file.read().decode(errors="replace")
            file.seek(0)
            file.truncate()
            return text

        os.dup2(file.fileno(), 2)
        try:
            yield said, kept
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def main() -> int:
    """Run the long form and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutants", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tally = fuzz(asked.mutants, seed=asked.seed, folder=Path(folder))
    for (kind, end), count in sorted(tally.ends.items()):
        print(f"{kind:20} {end:10} {count}")
    print(f"{tally.ends.total()} mutants, none lost, changed or let out; the slowest took {tally.slowest_s:.2f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
