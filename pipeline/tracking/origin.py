"""Who made a row and from which code, as tags under the names that MLflow's page shows."""

import getpass
import subprocess
from contextlib import suppress
from pathlib import Path

CODE = ("conf", "pipeline", "stages", "pyproject.toml", "constraints.txt")
"""What a commit has to hold for a run to be repeatable. Generated files and images stand beside it."""


def origin_tags(root: Path) -> dict[str, str]:
    """Return the user, the commit, and whether the code or `conf/` differ from it (`dirty`)."""
    tags = {"mlflow.source.name": "unfreeze", "mlflow.source.type": "LOCAL"}
    with suppress(OSError, KeyError):  # a container may run as a user without a name
        tags["mlflow.user"] = getpass.getuser()
    with suppress(OSError, subprocess.SubprocessError):  # the project may be a copy without git
        tags["mlflow.source.git.commit"] = _git(root, "rev-parse", "HEAD")
        tags["dirty"] = "true" if _git(root, "status", "--porcelain", "--", *CODE) else "false"
    return tags


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
