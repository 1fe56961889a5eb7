"""Who made a row and from which code, as tags under the names that MLflow's page shows."""

import getpass
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

CODE = ("conf", "pipeline", "stages", "pyproject.toml", "constraints.txt")
"""What a commit has to hold for a run to be repeatable. Generated files and images stand beside it."""


@dataclass(frozen=True)
class Commit:
    """The commit of a checkout."""

    sha: str
    is_dirty: bool
    """Whether the code or `conf/` differ from it."""


def read_commit(checkout: Path) -> Commit | None:
    """Ask git for the commit of a checkout; None without git, as in a copy of the project."""
    try:
        return Commit(_git(checkout, "rev-parse", "HEAD"), bool(_git(checkout, "status", "--porcelain", "--", *CODE)))
    except (OSError, subprocess.SubprocessError):
        return None


def origin_tags(root: Path) -> dict[str, str]:
    """Return the user, the commit, and whether the code or `conf/` differ from it (`dirty`)."""
    tags = {"mlflow.source.name": "unfreeze", "mlflow.source.type": "LOCAL"}
    with suppress(OSError, KeyError):  # a container may run as a user without a name
        tags["mlflow.user"] = getpass.getuser()
    if (commit := read_commit(root)) is not None:
        tags["mlflow.source.git.commit"] = commit.sha
        tags["dirty"] = "true" if commit.is_dirty else "false"
    return tags


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
