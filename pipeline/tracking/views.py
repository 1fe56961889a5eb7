"""The two saved views of the table: what MLflow's page keeps under "Views", as tags of the experiment."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

PREFIX = "mlflow.sharedViewState."

RUNS, SWEEP = "unfreeze", "unfreeze-sweep"
"""The views' keys, for `?viewStateShareKey=`."""

_RUN_COLUMNS = (
    "attributes.`Duration`",
    "metrics.`accuracy`",
    "metrics.`accuracy_low`",
    "metrics.`accuracy_high`",
    "metrics.`accuracy_tta`",
    "metrics.`valid_loss`",
    "metrics.`epochs_run`",
    "metrics.`kept_cycle`",
    "metrics.`lr_head`",
    "metrics.`lr_full`",
    "attributes.`Dataset`",
    "tags.`changed`",
)
_SWEEP_COLUMNS = (
    "attributes.`Duration`",
    "metrics.`valid_loss`",
    "metrics.`valid_accuracy`",
    "metrics.`accuracy`",
    "metrics.`epochs_run`",
    "metrics.`kept_cycle`",
    "metrics.`train_seconds`",
)


@dataclass(frozen=True, kw_only=True)
class View:
    """Which rows the table shows, in which order and with which columns."""

    name: str
    filter: str
    order_by: str
    ascending: bool
    columns: Sequence[str]

    def to_tag(self) -> str:
        """Return the view as MLflow's page saves it."""
        state = {
            "searchFilter": self.filter,
            "orderByKey": self.order_by,
            "orderByAsc": self.ascending,
            "selectedColumns": list(self.columns),
        }
        now_ms = int(time.time() * 1000)
        return json.dumps({"name": self.name, "createdAt": now_ms, "updatedAt": now_ms, "state": json.dumps(state)})


def runs_view() -> View:
    """The runs of the whole pipeline, newest first, without the jobs that were run by hand."""
    return View(
        name="Runs",
        filter="tags.job IS NULL",
        order_by="attributes.start_time",
        ascending=False,
        columns=_RUN_COLUMNS,
    )


def sweep_view(sweep: str, changed: Sequence[str]) -> View:
    """The jobs of one sweep, the best first, with a column for each setting that was `changed`."""
    return View(
        name="Latest sweep",
        filter=f"tags.sweep = '{sweep}'",
        order_by="metrics.`valid_loss`",
        ascending=True,
        columns=[*(f"params.`{key}`" for key in changed), *_SWEEP_COLUMNS],
    )
