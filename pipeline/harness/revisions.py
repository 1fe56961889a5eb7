"""Reads a run out of git and DVC's cache: a commit, a branch, or the name of an experiment."""

from collections.abc import Iterator
from pathlib import Path

from dvc.api import DVCFileSystem
from dvc.exceptions import DvcException

from pipeline.files import atomic_file
from pipeline.paths import ARTIFACTS, PARAMS

READ = (
    "stage.json", "metrics.json", "cycles.json", "lr.json", "verdict.json", "valid.csv", "answers.csv",
    "manifest.jsonl", "classes.json", "source.json",
)  # fmt: skip
"""The files of a stage's folder that comparisons read."""


def read_at(revision: str, file: Path, *, checkout: Path = Path()) -> str:
    """Read a text file as it was at `revision`, from git or from DVC's cache."""
    with DVCFileSystem(str(checkout.resolve()), rev=revision).open(file.as_posix(), "r", encoding="utf-8") as text:
        return str(text.read())


def fetch_run(revision: str, target: Path, *, checkout: Path = Path()) -> None:
    """Copy what comparisons read of the run at `revision` into the folder `target`, which then is one of a run.

    Raises ValueError that says what to do if git does not know the revision, or if its results are not in DVC's cache.
    """
    try:
        files = DVCFileSystem(str(checkout.resolve()), rev=revision)
        found = list(_wanted(files))
        for path in found:
            _copy(files, path, target / path.removeprefix(f"{ARTIFACTS}/"))
    except (DvcException, OSError) as error:
        raise ValueError(
            f"{revision} cannot be read ({error}): name a folder, a commit or an experiment of `dvc exp show` whose "
            "results are in DVC's cache (`dvc pull` fetches them from a remote)"
        ) from None
    if f"{ARTIFACTS}/full_train/stage.json" not in found and f"{ARTIFACTS}/head_train/stage.json" not in found:
        raise ValueError(f"{revision} has no results: its dvc.lock names no training stage")


def _wanted(files: DVCFileSystem) -> Iterator[str]:
    if files.exists(str(PARAMS)):
        yield str(PARAMS)
    for stage in files.ls(str(ARTIFACTS), detail=False):
        yield from (f"{stage}/{name}" for name in READ if files.exists(f"{stage}/{name}"))
    code = f"{ARTIFACTS}/config/code"
    yield from files.ls(code, detail=False) if files.exists(code) else ()


def _copy(files: DVCFileSystem, path: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with files.open(path, "rb") as source, atomic_file(target) as copy:
        copy.write(source.read())
