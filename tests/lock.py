"""Write `requirements.lock` again: `python -m tests.lock`. The pins of constraints.txt with the digests that PyPI has.

torch and torchvision are left out: which of their builds is right depends on the machine.
"""

import json
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import InvalidSdistFilename, InvalidWheelFilename, parse_sdist_filename, parse_wheel_filename
from packaging.version import Version

PROJECT = Path(__file__).resolve().parents[1]
PINS = PROJECT / "constraints.txt"
LOCK = PROJECT / "requirements.lock"
BUILT_FOR_A_MACHINE = {"torch", "torchvision"}
HEADER = "# Written by `python -m tests.lock` from constraints.txt. How to use it: SECURITY.md.\n"


def read_pins() -> dict[str, Requirement]:
    """The pins by name, without those that are built for a machine."""
    lines = (line.partition("#")[0].strip() for line in PINS.read_text(encoding="utf-8").splitlines())
    pins = [Requirement(line) for line in lines if line]
    return {pin.name: pin for pin in pins if pin.name not in BUILT_FOR_A_MACHINE}


def fetch_digests(pin: Requirement) -> list[str]:
    """Ask PyPI for the SHA-256 of every file of a pinned version, sorted."""
    request = urllib.request.Request(
        f"https://pypi.org/simple/{pin.name}/", headers={"Accept": "application/vnd.pypi.simple.v1+json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        files = json.load(answer)["files"]
    [version] = [Version(s.version) for s in pin.specifier]
    return sorted(file["hashes"]["sha256"] for file in files if version in _versions(file["filename"]))


def _versions(filename: str) -> Iterator[Version]:
    """The version that a file's name gives; none for kinds of files that pip does not install."""
    try:
        yield parse_wheel_filename(filename)[1] if filename.endswith(".whl") else parse_sdist_filename(filename)[1]
    except (InvalidWheelFilename, InvalidSdistFilename):
        return


def main() -> int:
    """Write the lock."""
    lines = [HEADER]
    for name, pin in read_pins().items():
        digests = fetch_digests(pin)
        assert digests, f"PyPI has no file of {pin}"
        lines.append(" \\\n    ".join([str(pin), *(f"--hash=sha256:{digest}" for digest in digests)]) + "\n")
        print(f"{name}: {len(digests)} files", file=sys.stderr)
    LOCK.write_text("".join(lines), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
