"""The two saved views of the table, runs and sweep: what MLflow's page keeps under "Views", as tags of the experiment.

A view names the rows, their order, the columns with their widths, and the charts that are shown first.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PREFIX = "mlflow.sharedViewState."

RUNS, SWEEP = "unfreeze", "unfreeze-sweep"
"""The views' keys, for `?viewStateShareKey=`."""

_NAME, _CREATED, _DURATION = "attributes.`Run Name`", "runDateAndNestInfo", "duration"
_WIDTHS = {_NAME: 380, _CREATED: 150, _DURATION: 90, "attributes.`Dataset`": 230, "tags.`changed`": 300}
_WIDTH, _SETTING_WIDTH = 105, 180

_RUN_COLUMNS = (
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
_TEST_COLUMNS = ("metrics.`accuracy`", "metrics.`accuracy_low`", "metrics.`accuracy_high`")
_SWEEP_COLUMNS = (
    "metrics.`valid_loss`",
    "metrics.`valid_accuracy`",
    "metrics.`epochs_run`",
    "metrics.`kept_cycle`",
    "metrics.`train_seconds`",
)

_CHARTS: Mapping[str, Sequence[str]] = {
    "Model metrics": ("accuracy", "valid_loss", "valid_accuracy", "train_seconds"),
    "curve/full_train": ("valid_loss", "valid_accuracy", "train_plain_loss", "train_loss", "lr"),
    "curve/head_train_augmented": ("valid_loss", "valid_accuracy", "train_loss"),
}
"""The charts that stand first, by section: bars of scores, then curves. MLflow adds all others behind them."""


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
        order = [_NAME, _CREATED, _DURATION, *self.columns]
        state = {
            "searchFilter": self.filter,
            "orderByKey": self.order_by,
            "orderByAsc": self.ascending,
            "selectedColumns": list(self.columns),
            "columnOrder": order,
            "columnWidths": {column: _width(column) for column in order},
            **_charts(),
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


def sweep_view(sweep: str, changed: Sequence[str], *, tested: bool) -> View:
    """The jobs of one sweep, the best first, with a column for each setting that was `changed`.

    `tested`: whether the jobs predicted test images.
    """
    return View(
        name="Latest sweep",
        filter=f"tags.sweep = '{sweep}'",
        order_by="metrics.`valid_loss`",
        ascending=True,
        columns=[
            *(f"params.`{key}`" for key in changed if "." in key),
            *(_TEST_COLUMNS if tested else ()),
            *_SWEEP_COLUMNS,
        ],
    )


def _width(column: str) -> int:
    return _WIDTHS.get(column, _SETTING_WIDTH if column.startswith("params.") else _WIDTH)


def _charts() -> dict[str, Any]:
    sections = [
        {"uuid": name, "name": name, "display": True, "isReordered": True, "deleted": False, "isGenerated": False}
        for name in _CHARTS
    ]
    charts = [_chart(section, name) for section, names in _CHARTS.items() for name in names]
    return {"compareRunSections": sections, "compareRunCharts": charts, "isAccordionReordered": True}


def _chart(section: str, name: str) -> dict[str, Any]:
    is_curve = section.startswith("curve/")
    key = f"{section}/{name}" if is_curve else name
    chart = {
        "uuid": key,
        "type": "LINE" if is_curve else "BAR",
        "metricSectionId": section,
        "metricKey": key,
        "displayName": name,
        "runsCountToCompare": 10,
        "deleted": False,
        "isGenerated": True,
    }
    return chart | (_LINE if is_curve else {})


_LINE = {
    "lineSmoothness": 0,
    "xAxisScaleType": "linear",
    "scaleType": "linear",
    "range": {},
    "xAxisKey": "step",
    "selectedXAxisMetricKey": "",
    "yAxisKey": "metric",
    "yAxisExpressions": [],
    "ignoreOutliers": False,
    "useGlobalXaxisKey": True,
    "useGlobalLineSmoothing": True,
}
