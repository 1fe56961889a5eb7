"""Repairs `dvc.lock` before an experiment, where it names outputs that neither DVC's cache nor its remote holds.

`dvc exp run` looks up which of a stage's inputs are DVC's own. Where `dvc.lock` names a folder that is in neither and
the stage that makes it is restored from the run cache, DVC 3.67 stops: "failed to load directory". `dvc repro` does
not look them up.
"""

from collections.abc import Callable
from pathlib import Path

from dvc.output import Output
from dvc.repo import Repo
from dvc.utils.serialize import modify_yaml

PIPELINE, LOCK = "dvc.yaml", "dvc.lock"


def repair_lock(checkout: Path, *, say: Callable[[str], object] = lambda _: None) -> list[str]:
    """Remove from `dvc.lock` what is nowhere to be found; returns the stages that it no longer names.

    Outputs that are in the workspace as `dvc.lock` says are put into the cache, and what the default remote holds stays
    named: DVC reads it there. All others would be made again, or restored from the run cache, in any case. Where the
    remote cannot be asked, nothing is removed.
    """
    removed = []
    with Repo(str(checkout)) as repo:
        for stage in (s for s in repo.index.stages if s.path_in_repo == PIPELINE):
            missing = [o for o in stage.outs if o.hash_info.isdir and not repo.cache.local.exists(o.hash_info.value)]
            gone = [out for out in missing if out.workspace_status()]
            if not gone:
                for out in missing:
                    out.commit()
                continue
            try:
                is_held = _remote_holds(repo, gone)
            except Exception as error:  # each kind of remote raises its own
                say(
                    f"DVC's remote cannot be asked for what {LOCK} names ({error}): it stays named. If DVC stops at "
                    f'"failed to load directory", `rm {LOCK}` and type the same command again: what is in the cache is '
                    "not made again"
                )
                break
            if not is_held:
                removed.append(stage.name)
    if removed:
        with modify_yaml(str(checkout / LOCK)) as lock:
            for name in removed:
                del lock["stages"][name]
    return removed


def _remote_holds(repo: Repo, outs: list[Output]) -> bool:
    """Whether the default remote holds the lists of files of all these folders; no if there is none."""
    if not repo.config["core"].get("remote"):
        return False
    remote = repo.cloud.get_remote_odb()
    return all(remote.exists(out.hash_info.value) for out in outs)
