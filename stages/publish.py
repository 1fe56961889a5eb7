"""The last stage: say how the run ended, and complete its MLflow row.

Reads the folders of all stages, those restored from DVC's cache too. Writes nothing here; the row in MLflow gets all
settings, rates, learning curves, scores, pictures, the report and the model. Runs at every `dvc repro`, and does
nothing where the row is complete.
"""

import sys

from pipeline.console import complain, say
from pipeline.harness.delivery import row_spec, run_occasion
from pipeline.harness.ending import show_ending
from pipeline.harness.live import RunClock
from pipeline.params import load_params
from pipeline.paths import ARTIFACTS, PARAMS
from pipeline.settings import read_settings, with_environment
from pipeline.tracking import publish_row
from stages import STAGES


def main() -> int:
    """Publish the state of the working copy."""
    try:
        folders = {name: ARTIFACTS / name for name in STAGES if (ARTIFACTS / name / "stage.json").exists()}
        show_ending(folders, report=ARTIFACTS / "report" / "report.html")
        params = load_params(PARAMS)
        runtime = with_environment(read_settings(params, source=str(PARAMS)).runtime)
        if not runtime.tracking:
            say("publish", "runtime.tracking=false: nothing is sent to MLflow")
            return 0
        drawn = folders.pop("report", None)
        clock = RunClock(params, runtime)
        occasion = run_occasion(clock.since)
        spec = row_spec(params=params, folders=folders, drawn=drawn, runtime=runtime, occasion=occasion)
        publish_row(spec)
        clock.stop()
    except (ValueError, OSError) as error:
        complain("publish", str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
