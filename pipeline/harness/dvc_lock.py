"""Repairs `dvc.lock` before an experiment, where it names outputs that DVC's cache does not hold, as after a clone.

`dvc exp run` looks up which of a stage's inputs are DVC's own. Where `dvc.lock` names a folder that is not in the cache
and the stage that makes it is restored from the run cache, DVC 3.67 stops: "failed to load directory". `dvc repro` does
not look them up.
"""

from pathlib import Path

from dvc.repo import Repo
from dvc.utils.serialize import modify_yaml

PIPELINE, LOCK = "dvc.yaml", "dvc.lock"


def repair_lock(checkout: Path) -> list[str]:
    """Remove from `dvc.lock` what is missing from the cache; returns the stages that it no longer names.

    Outputs that are in the workspace as `dvc.lock` says are put into the cache. All others would be made again, or
    restored from the run cache, in any case. With a default remote nothing is done: DVC finds there what is missing.
    """
    removed = []
    with Repo(str(checkout)) as repo:
        if repo.config["core"].get("remote"):
            return []
        for stage in (s for s in repo.index.stages if s.path_in_repo == PIPELINE):
            missing = [o for o in stage.outs if o.hash_info.isdir and not repo.cache.local.exists(o.hash_info.value)]
            if any(out.workspace_status() for out in missing):
                removed.append(stage.name)
            else:
                for out in missing:
                    out.commit()
    if removed:
        with modify_yaml(str(checkout / LOCK)) as lock:
            for name in removed:
                del lock["stages"][name]
    return removed
