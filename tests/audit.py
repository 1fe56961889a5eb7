"""Ask PyPI which pinned packages have known vulnerabilities: `python -m tests.audit`, a part of `make check`.

Prints how many could be asked about, so that no answer is taken for a good one. Without a network it says that nothing
is known, and passes: a release must not depend on it, and CI asks again at every push.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

PINS = Path(__file__).resolve().parents[1] / "constraints.txt"
COMMAND = ("pip_audit", "--requirement", str(PINS), "--no-deps", "--disable-pip", "--format", "json",
           "--progress-spinner", "off", "--timeout", "10")  # fmt: skip


def summarise(packages: list[dict[str, Any]]) -> tuple[str, int]:
    """What the answers say, and the number of known vulnerabilities. `packages` are as pip-audit gives them."""
    asked = [package for package in packages if "vulns" in package]
    found = [(package, vulnerability) for package in asked for vulnerability in package["vulns"]]
    lines = [f"audit: {len(asked)} of {len(packages)} pinned packages are known to PyPI's database of vulnerabilities"]
    if not asked:
        lines.append("audit: nothing is known of any of them here; where PyPI can be asked, type `make audit` again")
    for package, vulnerability in found:
        fixed = ", ".join(vulnerability["fix_versions"]) or "none yet"
        lines.append(f"{package['name']}=={package['version']}: {vulnerability['id']}; fixed in: {fixed}")
    return "\n".join(lines), len(found)


def main() -> int:
    """Ask; returns 1 if a pinned package has a known vulnerability."""
    done = subprocess.run([sys.executable, "-m", *COMMAND], capture_output=True, text=True, check=False)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        last = (done.stderr.strip() or "no answer").splitlines()[-1]
        print(f"audit: PyPI could not be asked ({last}): nothing is known here")
        return 0
    text, count = summarise(packages)
    print(text)
    return int(count > 0)


if __name__ == "__main__":
    sys.exit(main())
