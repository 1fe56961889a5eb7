"""Composing the settings from `conf/` with overrides: the only module that knows Hydra.

A setting travels conf/ -> (override) -> params.yaml -> stage, however the stage is started.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import CompactHydraException, HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.console import complain
from pipeline.harness.checked import read_checked
from pipeline.harness.job_record import job_record
from pipeline.paths import CONF
from pipeline.settings import SettingsError, all_keys, nearest_key

GROUPS = ("data", "model", "augment", "experiment", "sweep")


def compose(overrides: Sequence[str] = (), *, conf: Path = CONF) -> dict[str, Any]:
    """Compose `conf/` with Hydra overrides into a checked nested dict. Raises SettingsError."""
    check_overrides(overrides)
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(conf.resolve()), version_base="1.3"):
            composed = hydra.compose("config", overrides=list(overrides))
            values = _plain(composed)
    except (HydraException, OmegaConfBaseException) as error:
        raise SettingsError(f"{conf}/: {error}") from None
    read_checked(values, source=f"{conf}/")
    return values


def check_overrides(overrides: Sequence[str]) -> None:
    """Raise SettingsError, with the nearest valid key, for an override of a setting that does not exist."""
    known = {*all_keys(), *GROUPS}
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise SettingsError(str(error).splitlines()[0]) from None
    for override in parsed:
        key = override.key_or_group
        if key.startswith(("hydra.", "hydra/")) or key == "hydra":
            continue
        if override.is_add() or override.is_delete():
            raise SettingsError(
                f"{override.input_line}: settings cannot be added or removed, only changed; write {key}=..."
            )
        if key not in known:
            raise SettingsError(f"{override.input_line}: {key} is not a setting; nearest: {nearest_key(key)}")


class NoteSweep(Callback):
    """Notes the folder of the sweep that Hydra starts."""

    folder: Path | None = None

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        NoteSweep.folder = Path(config.hydra.sweep.dir)


def run_app(
    job: Callable[[dict[str, Any], Path, list[str]], float | None],
    *,
    name: str,
    program: str = "pipeline",
    conf: Path = CONF,
    end_sweep: Callable[[Path], object] = lambda _: None,
) -> bool:
    """Run `job(params, folder, overrides)` as a Hydra app named `name`: once, or once per job of a sweep.

    `program` is what is typed behind `python -m`. `end_sweep(folder)` is called when all jobs of a sweep have ended,
    well or not. Returns whether it succeeded. An error that the user can fix is printed in one line. In a sweep Hydra
    must know that a job failed while the others continue: there it gets an exception, and ends the process with status
    1.
    """
    failed = False

    def task(composed: DictConfig) -> float | None:
        nonlocal failed
        run = HydraConfig.get()
        folder, overrides = Path(run.runtime.output_dir), list(run.overrides.task)
        try:
            with job_record(folder, program=program, overrides=overrides):
                values = _plain(composed)
                read_checked(values, source=f"{conf}/ and command line")
                return job(values, folder, overrides)
        except (ValueError, OSError, OmegaConfBaseException) as error:
            complain(name, str(error))
            if is_sweep():
                raise CompactHydraException("job failed; see the error above") from None
            failed = True
            return None

    try:
        check_overrides([a for a in sys.argv[1:] if not a.startswith("-")])
    except SettingsError as error:
        complain(name, str(error))
        return False
    note = f"{NoteSweep.__module__}.{NoteSweep.__name__}"
    sys.argv += [f"hydra.job.name={name}", f"+hydra.callbacks.note_sweep._target_={note}"]
    NoteSweep.folder = None
    try:
        hydra.main(version_base="1.3", config_path=str(conf.resolve()), config_name="config")(task)()
    finally:
        if NoteSweep.folder is not None:
            end_sweep(NoteSweep.folder)
    return not failed


def is_sweep() -> bool:
    """Whether the running Hydra job is one of several."""
    return bool(HydraConfig.get().mode == hydra.types.RunMode.MULTIRUN)


def _plain(composed: DictConfig) -> dict[str, Any]:
    values = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    assert isinstance(values, dict)
    return {str(k): v for k, v in values.items()}
