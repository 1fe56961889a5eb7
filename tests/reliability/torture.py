"""Faults at every step, and damage to everything that is kept: `python -m tests.reliability.torture`. It takes hours.

Prints a table of what was tried and what survived. A try has survived if the stage then ends with the very bytes of an
undisturbed run, and, where the disk failed, if there was one error that names a file.
"""

import argparse
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "UNFREEZE_TRACKING": "false", "UNFREEZE_THREADS": "1"}

from pipeline.harness.compose import compose
from pipeline.harness.dag import run_stages
from stages.registry import ALL
from tests.conftest import PROJECT, Run, write_pictures
from tests.reliability.conftest import SMALL
from tests.reliability.faults import BROKEN, NO_ROOM, STAGES, Fault, Lab


@dataclass
class Row:
    """What was tried of one kind, and what did not survive."""

    kind: str
    tried: int = 0
    failures: list[str] = field(default_factory=list)

    def note(self, failure: str | None) -> None:
        self.tried += 1
        if failure is not None:
            self.failures.append(failure)
            print(f"  FAILED {self.kind}: {failure}", file=sys.stderr, flush=True)

    def __str__(self) -> str:
        worst = self.failures[0] if self.failures else ""
        return f"| {self.kind} | {self.tried} | {self.tried - len(self.failures)} | {worst} |"


def kills(lab: Lab, row: Row, every: int) -> None:
    """Kill at each step, and the resume at a step of its own; then the same bytes."""
    for at in range(1, _steps(lab) + 1, every):
        lab.clear()
        lab.run(Fault(at))
        lab.run(Fault(1 + at * 7 % 23))
        row.note(_finish(lab, f"{lab.stage.name} killed at step {at}"))


def disk(lab: Lab, row: Row, every: int, error: int) -> None:
    """Let each step and all after it fail: one error that names a file, and then the same bytes."""
    for at in range(1, _steps(lab) + 1, every):
        lab.clear()
        ended, name = lab.run(Fault(at, error)), f"{lab.stage.name} at step {at}"
        if ended.status not in (0, 1):
            row.note(f"{name}: {ended.said.strip()}")
        elif ended.status == 1 and str(lab.folder) not in ended.said:
            row.note(f"{name}: no file is named: {ended.said.strip()}")
        else:
            row.note(_finish(lab, name))


def damage(lab: Lab, row: Row, every: int) -> None:
    """Kill, damage one file of what is kept, and run: the same bytes."""
    generator, steps = random.Random(0), _steps(lab)
    for at in range(1, steps + 1, every):
        lab.clear()
        lab.run(Fault(at))
        kept = sorted(p for p in lab.state.rglob("*") if p.is_file() and p.suffix != ".lock")
        if not kept:
            continue
        file = generator.choice(kept)
        how, change = generator.choice(DAMAGES)
        file.write_bytes(change(file.read_bytes(), generator))
        row.note(_finish(lab, f"{lab.stage.name} killed at {at}, {file.name} {how}"))


def _flip(content: bytes, generator: random.Random) -> bytes:
    if not content:
        return b"?"
    changed = bytearray(content)
    changed[generator.randrange(len(changed))] ^= 1 << generator.randrange(8)
    return bytes(changed)


DAMAGES: Sequence[tuple[str, Callable[[bytes, random.Random], bytes]]] = (
    ("with a bit flipped", _flip),
    ("with a bit flipped", _flip),
    ("cut", lambda content, generator: content[: generator.randrange(len(content) + 1)]),
    ("emptied", lambda *_: b""),
    ("of a newer version", lambda *_: b'{"version": 99, "what": ["nobody", "knows"]}\n'),
    ("full of zeros", lambda content, _: bytes(len(content))),
)


def _steps(lab: Lab) -> int:
    lab.clear()
    return lab.run().steps


def _finish(lab: Lab, name: str) -> str | None:
    """Run to the end; says what is wrong, if anything is."""
    try:
        ended = lab.run()
    except TimeoutError as error:
        return f"{name}: {error}"
    if ended.status != 0:
        return f"{name}: {ended.said.strip()[-300:]}"
    return None if lab.is_right() else f"{name}: other bytes"


def _labs(run: Run, root: Path, names: Sequence[str]) -> Iterator[Lab]:
    for name in names:
        folder = root / name
        folder.mkdir()
        yield Lab(name, run.artifacts, run.params, folder)
        shutil.rmtree(folder)


def main() -> int:
    """Run the table; returns 1 if anything did not survive."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--every", type=int, default=1, help="take each so many steps only")
    parser.add_argument("--stages", nargs="*", default=list(STAGES))
    arguments = parser.parse_args()
    rows = [Row("kill -9 at each step, and again in the resume"), Row("disk full from each step on"),
            Row("disk broken from each step on"), Row("killed, and one file of .unfreeze damaged")]  # fmt: skip
    with tempfile.TemporaryDirectory() as there:
        root = Path(there)
        params = compose([*SMALL, f"data.root={write_pictures(root / 'pictures')}"], conf=PROJECT / "conf")
        run = Run(run_stages(ALL, params, root / "whole"), params)
        for lab in _labs(run, root, arguments.stages):
            kills(lab, rows[0], arguments.every)
            disk(lab, rows[1], arguments.every, NO_ROOM)
            disk(lab, rows[2], arguments.every, BROKEN)
            damage(lab, rows[3], arguments.every)
            print(f"{lab.stage.name}: {', '.join(str(row.tried) for row in rows)} tried", file=sys.stderr, flush=True)
    print("| kind | tried | survived | worst |\n|---|---|---|---|")
    print(*rows, sep="\n")
    return int(any(row.failures for row in rows))


if __name__ == "__main__":
    sys.exit(main())
