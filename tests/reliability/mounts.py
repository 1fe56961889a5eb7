"""A whole run on disks that are too small, read-only or made of parts: `python -m tests.reliability.mounts`, as root.

Every try must end with the bytes of an undisturbed run, or with one error that names a file, and after the cause is
gone with those bytes all the same.
"""

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "UNFREEZE_TRACKING": "false", "UNFREEZE_THREADS": "1"}

from pipeline.harness.compose import compose
from pipeline.harness.dag import run_stages
from stages.registry import ALL
from tests.conftest import PROJECT, write_pictures
from tests.reliability.conftest import SMALL
from tests.reliability.faults import hashes, status_of
from tests.reliability.torture import Row

KB, MB = 2**10, 2**20
SIZES = (*range(64 * KB, MB, 192 * KB), *range(MB, 40 * MB, 2 * MB))
"""Of the disk, in bytes; an undisturbed run needs less than the last."""


@contextmanager
def mounted(kind: str, source: str, at: Path, options: str) -> Iterator[Path]:
    """Mount something while the block runs."""
    at.mkdir(parents=True, exist_ok=True)
    _mount("-t", kind, "-o", options, source, str(at)) if kind else _mount("--bind", source, str(at))
    try:
        yield at
    finally:
        subprocess.run(["umount", str(at)], check=True)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


class Whole:
    """Runs all stages, each time in a process of its own."""

    def __init__(self, root: Path) -> None:
        self.params = compose([*SMALL, f"data.root={write_pictures(root / 'pictures')}"], conf=PROJECT / "conf")
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([__name__])
        self._told = root / "told.json"
        assert self.run(root / "whole") == (0, "")
        self.expected = _results(root / "whole")

    def run(self, folder: Path) -> tuple[int, str]:
        """Run all; returns the status (70: an error that nobody handles) and what was said."""
        folder.mkdir(exist_ok=True)
        process = self._context.Process(target=_run_all, args=(self.params, folder, self._told))
        process.start()
        process.join(300)
        process.kill()
        status, said = json.loads(self._told.read_text())
        return status, said

    def is_right(self, folder: Path) -> bool:
        return _results(folder) == self.expected

    def check(self, folder: Path, name: str, *, mend: Callable[[], None], row: Row) -> None:
        """Run on what is broken, mend it, and run again."""
        status, said = self.run(folder)
        if status not in (0, 1) or (status == 1 and str(folder) not in said):
            row.note(f"{name}: {said.strip()[-300:]}")
            return
        mend()
        status, said = self.run(folder)
        row.note(None if status == 0 and self.is_right(folder) else f"{name}, then mended: {said.strip()[-300:]}")


def _results(folder: Path) -> dict[str, str]:
    """The hash of every file but those of the report, which tells how long things took."""
    return {name: told for name, told in hashes(folder / "artifacts").items() if not name.startswith("report/")}


def _run_all(params: Mapping[str, Any], folder: Path, told: Path) -> None:
    os.chdir(folder)
    said = told.with_suffix(".txt")
    with said.open("w") as file, redirect_stderr(file):
        status = status_of(lambda: run_stages(ALL, params, folder))
    told.write_text(json.dumps([status, said.read_text() if status else ""]))
    os._exit(status)


def small_disks(whole: Whole, root: Path, sizes: Sequence[int], row: Row, *, state_only: bool) -> None:
    """All on a disk of each size, or `.unfreeze` alone; then the disk grows."""
    for size in sizes:
        folder = root / "small"
        at = folder / ".unfreeze" if state_only else folder
        with mounted("tmpfs", "tmpfs", at, f"size={size}"):
            grow = lambda at=at: _mount("-o", "remount,size=200m", str(at))  # noqa: E731
            whole.check(folder, f"{at.name} on {size // KB} kB", mend=grow, row=row)
        shutil.rmtree(folder)


def parts(whole: Whole, root: Path, row: Row) -> None:
    """State and artifacts on two bind mounts of one disk, on an overlay, and a state that is read-only at first."""
    folder = root / "parts"
    for name in ("disk/a", "disk/s", "upper", "work", "lower"):
        (root / name).mkdir(parents=True)
    with mounted("", str(root / "disk/a"), folder / "artifacts", ""), \
         mounted("", str(root / "disk/s"), folder / ".unfreeze", ""):  # fmt: skip
        whole.check(folder, "two bind mounts", mend=lambda: None, row=row)
    over = f"lowerdir={root / 'lower'},upperdir={root / 'upper'},workdir={root / 'work'}"
    with mounted("overlay", "overlay", root / "over", over) as at:
        whole.check(at, "an overlay", mend=lambda: None, row=row)
    with mounted("tmpfs", "tmpfs", root / "locked" / ".unfreeze", "size=200m") as at:
        _mount("-o", "remount,ro", str(at))
        whole.check(root / "locked", "read-only .unfreeze", mend=lambda: _mount("-o", "remount,rw", str(at)), row=row)
    with mounted("", str(root / "pictures"), root / "pictures", ""):
        _mount("-o", "remount,bind,ro", str(root / "pictures"))
        whole.check(root / "from-read-only", "images on a read-only disk", mend=lambda: None, row=row)


def main() -> int:
    """Run the table; returns 1 if anything did not survive."""
    rows = [Row("a disk of each size"), Row(".unfreeze on a disk of each size"), Row("mounts")]
    with tempfile.TemporaryDirectory() as there:
        root = Path(there)
        whole = Whole(root)
        small_disks(whole, root, SIZES, rows[0], state_only=False)
        small_disks(whole, root, SIZES, rows[1], state_only=True)
        parts(whole, root, rows[2])
    print("| kind | tried | survived | worst |\n|---|---|---|---|")
    print(*rows, sep="\n")
    return int(any(row.failures for row in rows))


if __name__ == "__main__":
    sys.exit(main())
