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

_BARS = ("accuracy", "valid_loss", "valid_accuracy", "train_seconds")
_CURVES = ("valid_loss", "valid_accuracy", "train_plain_loss", "train_loss", "lr")
"""The charts that stand first, scores and the curves of one stage. MLflow adds all others behind them."""


@dataclass(frozen=True, kw_only=True)
class View:
    """Which rows the table shows, in which order and with which columns."""

    name: str
    filter: str
    order_by: str
    ascending: bool
    columns: Sequence[str]
    curves_of: str
    """The stage whose curves stand first."""

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
            **_charts(self.curves_of),
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
        curves_of="full_train",
    )


def sweep_view(sweep: str, changed: Sequence[str], *, tested: bool, trained: str) -> View:
    """The jobs of one sweep, the best first, with a column for each setting that was `changed`.

    `tested`: whether the jobs predicted test images; `trained`: the last stage that trained.
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
        curves_of=trained,
    )


def _width(column: str) -> int:
    return _WIDTHS.get(column, _SETTING_WIDTH if column.startswith("params.") else _WIDTH)


def _charts(stage: str) -> dict[str, Any]:
    bars, curves = "Model metrics", f"curve/{stage}"
    sections = [{"uuid": name, "name": name, "display": True, "isReordered": True} for name in (bars, curves)]
    charts = [
        *(_chart(bars, name, name, {"type": "BAR"}) for name in _BARS),
        *(_chart(curves, f"{curves}/{name}", name, _LINE) for name in _CURVES),
    ]
    return {"compareRunSections": sections, "compareRunCharts": charts, "isAccordionReordered": True}


def _chart(section: str, metric: str, title: str, kind: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "uuid": metric,
        "metricSectionId": section,
        "metricKey": metric,
        "displayName": title,
        "runsCountToCompare": 10,
        "deleted": False,
        "isGenerated": True,
        **kind,
    }


_LINE = {
    "type": "LINE",
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
