"""The first stage: settle the settings, so that what DVC hashes is what the stages read.

Reads `conf/`. Writes `params.yaml` (the resolved settings), `overrides.json` (what an experiment changed against
`conf/`) and `artifacts/config/`: fingerprints of the images, of the weights, of what precomputed views depend on, and
of the meaning of each stage's code, so that whatever changes reruns what depends on it. In an experiment it also
repairs `dvc.lock`. Runs at every `dvc repro`, in a fraction of a second.
"""

import os
from functools import partial
from pathlib import Path

from pipeline.console import complain, say
from pipeline.harness.checked import read_checked
from pipeline.harness.fingerprints import keep_code, recall_code, write_fingerprints
from pipeline.harness.live import RunClock, end_orphans
from pipeline.harness.settle import settle
from pipeline.harness.state_folder import check_state
from pipeline.harness.stop import leave, obeying
from pipeline.params import load_params
from pipeline.paths import ARTIFACTS, CONF, PARAMS, state_dir
from pipeline.settings import Runtime, with_environment
from pipeline.tracking.spec import store_uri
from stages import STAGES


def main() -> int:
    """Settle, fingerprint, and say what changed."""
    is_experiment = "DVC_EXP_NAME" in os.environ
    try:
        values = settle(is_experiment=is_experiment, say=partial(say, "config"))
        settings = read_checked(values, source=str(PARAMS))
        runtime = with_environment(settings.runtime)
        check_state(state_dir(), say=partial(say, "config"))
        _check_device(runtime)
        store_uri(Path(), runtime.tracking_uri)  # refused now, not after training
        recall_code(state_dir())
        write_fingerprints(settings, ARTIFACTS / "config", STAGES)
        keep_code(state_dir())
        _begin(runtime)
        if is_experiment:
            from pipeline.harness.dvc_lock import repair_lock  # DVC takes half a second to import

            repair_lock(Path(), say=partial(say, "config"))
    except (ValueError, OSError) as error:
        complain("config", str(error))
        return 1
    return 0


def _check_device(runtime: Runtime) -> None:
    """Refuse a device that is not here before the images are read; torch takes a second, so only where one is named."""
    if runtime.device not in ("auto", "cpu"):
        from pipeline.model.compute import choose_device

        choose_device(runtime)


def _begin(runtime: Runtime) -> None:
    """Note when this run began, and end the rows of runs that were killed."""
    if runtime.tracking:
        RunClock(load_params(PARAMS), runtime).start()
        end_orphans()


if __name__ == "__main__":
    assert CONF.is_dir(), "run from the project's root"
    leave(obeying("config", main))
