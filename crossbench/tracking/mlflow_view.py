"""What MLflow's page shows of our experiment: its kind, its description, and a view of the cells.

The page opens an experiment in its GenAI mode, with no runs at all, unless the address says
`workflowType=machine_learning`. So the description, which the page shows in both modes, links to
the view, and `view_path` is for links from elsewhere.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping

from crossbench.measure import catalogue
from crossbench.measure.metric import View
from crossbench.tracking.mlflow_format import CELL_TAG, NOTE_TAG, SWEEP_TAG

# The version of the tags below. An experiment with an older one, or none, gets them anew; what
# people then change in the page stays.
VERSION = "2"
VERSION_TAG = "crossbench.view"
_KIND_TAG = "mlflow.experimentKind"
_KEY = "crossbench"
_VIEW_TAG = f"mlflow.sharedViewState.{_KEY}"
_NAME = "Cells"
_OWN_NOTE = "Each parent run is a sweep of crossbench"  # how the descriptions of all versions begin
# Columns of the page by their ids, with their widths in pixels, from left to right
_RUN_NAME, _CREATED, _DURATION = "attributes.`Run Name`", "runDateAndNestInfo", "duration"
_METRICS = {f"metrics.`{name}`": 48 + 6 * len(name) for name in catalogue.names(View.MLFLOW_FIRST)}
_TAGS = {
    f"tags.`{key}`": width
    for key, width in (
        ("backend", 90), ("quant", 70), ("batch", 70), ("concurrency", 110), ("status", 90),
        ("model", 150), (SWEEP_TAG, 170),
    )
}  # fmt: skip
_WIDTHS = {_RUN_NAME: 240, _CREATED: 150, **_METRICS, **_TAGS, _DURATION: 80}


def view_path(experiment_id: str) -> str:
    """Return the path of the view after the address of the server: `#/experiments/…`."""
    return (
        f"#/experiments/{experiment_id}/runs?workflowType=machine_learning&viewStateShareKey={_KEY}"
    )


def experiment_tags(experiment_id: str, present: Mapping[str, str], now_ms: int) -> dict[str, str]:
    """Return the tags that an experiment lacks, of those that it has `present`.

    `now_ms` is the time in Unix milliseconds. A kind or a description that others gave it stays.
    """
    if present.get(VERSION_TAG) == VERSION:
        return {}
    tags = {_VIEW_TAG: _view(now_ms), VERSION_TAG: VERSION}
    if _KIND_TAG not in present:
        tags[_KIND_TAG] = "custom_model_development"  # not one of the GenAI kinds
    note = present.get(NOTE_TAG, "")
    if not note or note.startswith(_OWN_NOTE):
        tags[NOTE_TAG] = (
            f"{_OWN_NOTE}, its child runs are the cells. "
            f"[All cells with their numbers]({view_path(experiment_id)})"
        )
    return tags


def _view(now_ms: int) -> str:
    """Return the view in the form that the page saves ("Views", "Save as new view").

    It lists the cells, those of the newest sweep first (folders are named after the time). Sorted
    by the time of creation, the page would list their parent runs and hide the cells.
    """
    state = {
        "searchFilter": f"tags.`{CELL_TAG}` LIKE '%'",
        "orderByKey": f"tags.`{SWEEP_TAG}`",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": [*_METRICS, *_TAGS],
        "columnOrder": [*_WIDTHS],
        "columnWidths": _WIDTHS,
        "runsHiddenMode": "FIRST_20_RUNS",
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": False,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupBy": None,
        "groupsExpanded": {},
        "globalLineChartConfig": {
            "xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""
        },
    }  # fmt: skip
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode("ascii")
    view = {
        "name": _NAME,
        "createdAt": now_ms,
        "updatedAt": now_ms,
        "state": f"deflate;{packed}",
    }
    return json.dumps(view)
