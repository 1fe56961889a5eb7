"""A Hydra sweeper for grids, `key=1,2`: each combination is a job, and the same command goes on where it was killed."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper, BasicSweeperConf
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from pipeline.console import complain
from pipeline.files import digest
from pipeline.harness.compose import App
from pipeline.harness.sweep import Sweep


class FolderSweeper(Sweeper):
    """What the sweepers of this project share: a folder that follows from what is asked for, and jobs that go on."""

    app: App
    config: DictConfig
    hydra_context: HydraContext
    jobs: Sweep
    extent: frozenset[str] = frozenset()
    """The sweeper's own settings that only say how far to go."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Find the folder, and tell every job of it through the configuration."""
        assert isinstance(task_function, App)
        self.app, self.config, self.hydra_context = task_function, config, hydra_context
        with self._complaining():
            asked, made_from = self._asked(), self.app.made_from()
            if not any(typed.startswith("hydra.sweep.dir=") for typed in config.hydra.overrides.hydra):
                folder = f"{config.hydra.sweep.dir}/{asked[:10]}"
                with read_write(config), open_dict(config):
                    config.hydra.sweep.dir = folder
                    config.hydra.overrides.hydra.append(f"hydra.sweep.dir={folder}")
            launcher = Plugins.instance().instantiate_launcher(
                hydra_context=hydra_context, task_function=task_function, config=config
            )
            is_elsewhere = not isinstance(launcher, BasicLauncher)
            self.jobs = Sweep(
                Path(config.hydra.sweep.dir), self.app.name, self.app.program, asked, made_from, launcher.launch,
                is_elsewhere,
            )  # fmt: skip

    def sweep(self, arguments: list[str]) -> None:
        """Run all jobs."""
        with self._complaining(), self.jobs.opened():
            self.app.sweep = self.jobs.folder
            ready = self.config.hydra.sweeper.params or {}
            self.run_jobs(self._parse([*(f"{key}={value}" for key, value in ready.items()), *arguments]))

    @abstractmethod
    def run_jobs(self, overrides: list[Override]) -> None:
        """Run the jobs that these overrides ask for."""

    def _parse(self, words: Sequence[str]) -> list[Override]:
        """The overrides; of several with one key, the last."""
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        return list({o.get_key_element(): o for o in parser.parse_overrides(list(words))}.values())

    def _asked(self) -> str:
        """The digest of what is asked for: the program, the settings, how they are swept, and by which sweeper."""
        settings: Any = OmegaConf.to_container(self.config, resolve=False)
        of_hydra = settings.pop("hydra")
        settings.pop("runtime")  # how jobs are run, which changes no result
        swept = [o.input_line for o in self._parse(of_hydra["overrides"]["task"]) if o.is_sweep_override()]
        sweeper = {key: value for key, value in of_hydra["sweeper"].items() if key not in self.extent}
        return digest([self.app.name, settings, swept, sweeper])

    @contextmanager
    def _complaining(self) -> Iterator[None]:
        """Print in one line an error that the user can fix, and end the app."""
        try:
            yield
        except (ValueError, OSError, HydraException) as error:
            complain(self.app.name, str(error))
            self.app.failed = True
            raise SystemExit(1) from None


class Grid(FolderSweeper):
    """Every combination of the values that are typed as `key=1,2`, `range(1,4)` or `glob(*)`."""

    extent = frozenset({"max_batch_size"})

    def __init__(self, max_batch_size: int | None, params: Mapping[str, str] | None = None) -> None:
        del params  # read from the configuration, as typed
        self.max_batch_size = max_batch_size

    def run_jobs(self, overrides: list[Override]) -> None:
        """Run the grid, at most `max_batch_size` jobs at once."""
        for override in overrides:
            if override.is_sweep_override() and not override.is_discrete_sweep():
                raise ValueError(f"{override.input_line} is a range to search in: type hydra/sweeper=search beside it")
        first = 0
        for batch in BasicSweeper.split_arguments(overrides, self.max_batch_size):
            self.jobs.run(dict(enumerate(batch, first)))
            first += len(batch)


@dataclass
class GridConf(BasicSweeperConf):
    """The settings of the sweeper, as Hydra's own has them."""

    _target_: str = f"{Grid.__module__}.{Grid.__name__}"


ConfigStore.instance().store(group="hydra/sweeper", name="grid", node=GridConf, provider="unfreeze")
