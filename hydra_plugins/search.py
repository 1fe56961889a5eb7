"""A Hydra sweeper that searches: `hydra/sweeper=search 'unfreeze.lr_ratio=interval(1,10)'`.

Hydra imports every plugin at each start, so Optuna is imported late.
"""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import IntervalSweep, Override

from hydra_plugins.grid import FolderSweeper
from pipeline.files import digest
from pipeline.harness.typed import is_integer
from pipeline.settings import SettingsError


class Search(FolderSweeper):
    """Ranges, `interval(1,10)` and `tag(log,interval(1e-4,1e-1))`, and choices, `a,b`, searched with Optuna."""

    extent = frozenset({"n_trials"})

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def run_jobs(self, overrides: list[Override]) -> None:
        """Search in what is swept, with the other overrides in every job."""
        try:
            from pipeline.harness import search
        except ModuleNotFoundError as error:
            if error.name != "optuna":
                raise
            raise SettingsError(
                "hydra/sweeper=search needs Optuna: `python -m pip install 'unfreeze[search]'` adds it"
            ) from None
        space = {
            o.get_key_element(): self._range(o) or list(o.sweep_string_iterator())
            for o in overrides
            if o.is_sweep_override()
        }
        fixed = [str(o.input_line) for o in overrides if not o.is_sweep_override()]
        if not space:
            raise SettingsError("nothing to search in: type a range, as full_train.lr='tag(log,interval(1e-4,1e-1))'")
        settings = {key: value for key, value in self.settings.items() if key != "params"}
        search.Search(self.jobs, space, fixed, **settings).run()

    def _range(self, override: Override) -> Any:
        """The range that an override gives; None for choices. Raises SettingsError where no setting can be in it."""
        from pipeline.harness.search import Range

        sweep = override.value()
        if not isinstance(sweep, IntervalSweep):
            return None
        key, low, high, is_log = override.get_key_element(), sweep.start, sweep.end, "log" in sweep.tags
        whole = is_integer(key)
        if low is None or high is None or not low <= high or (is_log and low <= 0):
            raise SettingsError(f"{override.input_line}: this is no range")
        if whole and not (low.is_integer() and high.is_integer()):
            raise SettingsError(f"{override.input_line}: {key} is a whole number, so the ends of its range are too")
        return Range(low, high, whole, is_log)

    def _asked(self) -> str:
        """Also what every job reads: with other inputs or code, what was found so far proposes nothing."""
        return digest([super()._asked(), self.app.made_from()])


@dataclass
class SearchConf:
    """The settings of the sweeper; `hydra.sweeper.n_trials=40` goes further in the same search."""

    _target_: str = f"{Search.__module__}.{Search.__name__}"
    n_trials: int = 20
    max_batch_size: int = 1
    """Trials that are proposed together, for a launcher that runs as many side by side."""
    seed: int = 0
    n_startup_trials: int = 8
    pruner: str = "median"
    """Or none."""
    params: dict[str, Any] | None = field(default_factory=dict)


ConfigStore.instance().store(group="hydra/sweeper", name="search", node=SearchConf, provider="unfreeze")
