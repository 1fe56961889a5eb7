"""Composing the settings from `conf/`, what an experiment holds, and overrides, with Hydra.

A setting travels conf/ -> (held) -> (override) -> params.yaml -> stage, however the stage is started.
"""

import math
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.conf import HydraConf
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException, HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.console import complain, say
from pipeline.files import write_text
from pipeline.harness.base import LEAVE, beneath, describe, nest, read_held
from pipeline.harness.checked import read_checked
from pipeline.harness.job_record import PrunedError, job_record, read_job
from pipeline.harness.quoting import unresolved
from pipeline.harness.sweep import failure
from pipeline.harness.typed import BASES, chosen, names_base, read_typed
from pipeline.paths import CONF
from pipeline.processes import share_cores
from pipeline.settings import SettingsError
from pipeline.stopping import Stopped, listen
from pipeline.yaml_file import check_folder


def compose(overrides: Sequence[str] = (), *, conf: Path = CONF) -> dict[str, Any]:
    """Compose `conf/` alone with Hydra overrides into a checked nested dict. Raises SettingsError."""
    check_folder(conf)
    overrides = read_typed(overrides, conf=conf)
    store_base({})
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(conf.resolve()), version_base="1.3"):
            values = _plain(hydra.compose("config", overrides=[LEAVE, *overrides]))
    except _REFUSED as error:
        raise SettingsError(f"{conf}/: {_in_one_line(error)}") from None
    read_checked(values, source=f"{conf}/")
    return values


_REFUSED = (HydraException, OmegaConfBaseException, ValueError, TypeError, AttributeError, AssertionError, KeyError)
"""What Hydra raises for files that are YAML, but not as it expects them."""


def _in_one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if isinstance(error, HydraException | OmegaConfBaseException) else f"Hydra cannot compose it ({text})"


def start_from_held(arguments: Sequence[str], *, conf: Path = CONF, say: Callable[[str], None]) -> None:
    """Lay what an experiment holds under `arguments` when Hydra composes next, and say what they lie over.

    Raises SettingsError where `params.yaml` was edited by hand.
    """
    check_folder(conf)
    is_held = names_base(arguments) == "held" and bool(held := read_held(conf.parent))
    store_base(beneath(held, chosen(arguments, conf=conf)) if is_held else {})
    leave = f"; {LEAVE} starts from conf/ instead" if is_held else ""
    say(f"base: {describe(conf.parent, held=is_held)}{leave}")


def store_base(held: Mapping[str, Any]) -> None:
    """Give Hydra the choices of the group `base`: `held`, flat, and `conf`, which is empty."""
    for name, values in zip(BASES, (held, {}), strict=True):
        node = nest({key: unresolved(value) for key, value in values.items()})
        ConfigStore.instance().store(group="base", name=name, node=node, package="_global_")


Job = Callable[[dict[str, Any], Path, list[str]], float | None]
"""What a Hydra app runs: (settings, folder, overrides) -> objective."""


@dataclass
class App:
    """A Hydra app: what Hydra calls for each job, in this process or, pickled, in another.

    An error that the user can fix is printed in one line. In a sweep Hydra must know that a job failed while the others
    go on: there it gets an exception.
    """

    run: Job
    name: str
    program: str
    """What is typed behind `python -m`."""
    conf: Path
    made_from: Callable[[], str | None]
    """Gives the digest of what every job of a sweep reads beside its settings; None where only the jobs can tell."""
    objective: str | None = None
    """What a job returns: `<stage>/<metric>`."""
    process: int = field(default_factory=os.getpid)
    sweep: Path | None = None
    """The folder of the sweep, once it is known."""
    failed: bool = False

    def __call__(self, composed: DictConfig) -> float | None:
        """Run one job; return its objective."""
        run = HydraConfig.get()
        folder, overrides = Path(run.runtime.output_dir), list(run.overrides.task)
        is_here = os.getpid() == self.process
        if not is_here:
            listen(with_parent=True)
            share_cores(_jobs_at_once(run))
        try:
            with job_record(folder, program=self.program, overrides=overrides) as record:
                values = _plain(composed)
                read_checked(values, source=f"{self.conf}/ and command line")
                objective = self.run(values, folder, overrides)
                if objective is not None and not math.isfinite(objective):
                    raise ValueError(f"{self.objective} is {objective}")
                record["objective"] = None if objective is None else {"name": self.objective, "value": objective}
                return objective
        except Stopped as stopped:
            if is_here:
                raise
            os._exit(stopped.status)  # else joblib's process would wait for more to do, also without a sweep
        except PrunedError as pruned:
            say(self.name, f"{', '.join(overrides)}: {pruned}")
            return None
        except Exception as error:
            if not is_sweep() and not isinstance(error, ValueError | OSError | OmegaConfBaseException):
                raise
            if not is_sweep():
                self.failed = True
                complain(self.name, str(error))
                return None
            write_text(folder / "traceback.txt", traceback.format_exc())
            if is_here:
                complain(self.name, failure(folder.name, read_job(folder) or {}))
            raise CompactHydraException("job failed; see the error above") from None


def _jobs_at_once(run: HydraConf) -> int:
    """How many jobs run beside each other on one machine, and share its cores; 1 where Slurm gives each its own."""
    if "n_jobs" in run.launcher:
        return int(run.launcher.n_jobs)
    is_local = str(run.launcher.get("_target_")).endswith("LocalLauncher")
    return int(run.sweeper.get("max_batch_size") or 1) if is_local else 1


def run_app(
    job: Job,
    *,
    name: str,
    program: str = "pipeline",
    conf: Path = CONF,
    made_from: Callable[[], str | None] = lambda: None,
    objective: str | None = None,
    end_sweep: Callable[[Path], bool] = lambda _: True,
) -> bool:
    """Run `job(params, folder, overrides)` as a Hydra app named `name`: once, or once per job of a sweep.

    The other arguments are those of `App`. `end_sweep(folder)` is called when all jobs of a sweep have ended, or it is
    stopped, and returns whether all went well. Returns whether the app succeeded.
    """
    app = App(job, name, program, conf, made_from, objective)
    try:
        _read_command_line(partial(say, name), conf)
    except SettingsError as error:
        complain(name, str(error))
        return False
    sys.argv.append(f"hydra.job.name={name}")
    is_well = False
    try:
        hydra.main(version_base="1.3", config_path=str(conf.resolve()), config_name="config")(app)()
    finally:
        if app.sweep is not None:
            is_well = end_sweep(app.sweep)
    return not app.failed and (app.sweep is None or is_well)


def _read_command_line(say: Callable[[str], None], conf: Path) -> None:
    """Put quotes into `sys.argv` where they are missing, and start from what is held."""
    command = get_args_parser().parse_args(sys.argv[1:])
    meant = read_typed(command.overrides, conf=conf, is_sweep=command.multirun)
    spelled = dict(zip(command.overrides, meant, strict=True))
    sys.argv[1:] = [spelled.get(word, word) for word in sys.argv[1:]]
    start_from_held(meant, conf=conf, say=say)


def is_sweep() -> bool:
    """Whether the running Hydra job is one of several."""
    return bool(HydraConfig.get().mode == hydra.types.RunMode.MULTIRUN)


def _plain(composed: DictConfig) -> dict[str, Any]:
    values = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    assert isinstance(values, dict)
    return {str(k): v for k, v in values.items()}
