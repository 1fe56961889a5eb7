"""Composing the settings from `conf/`, what an experiment holds, and overrides, with Hydra.

A setting travels conf/ -> (held) -> (override) -> params.yaml -> stage, however the stage is started.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException, HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.console import complain, say
from pipeline.harness.base import LEAVE, beneath, describe, nest, read_held
from pipeline.harness.checked import read_checked
from pipeline.harness.job_record import job_record
from pipeline.harness.quoting import unresolved
from pipeline.harness.typed import BASES, chosen, names_base, read_typed
from pipeline.paths import CONF
from pipeline.settings import SettingsError
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
        _read_command_line(partial(say, name), conf)
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
