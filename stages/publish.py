"""The last stage: say how the run ended, complete its MLflow row, and register the model where one is named.

Reads the folders of all stages, those restored from DVC's cache too. Writes nothing here; the row in MLflow gets all
settings, rates, learning curves, scores, pictures, the report and the model. Runs at every `dvc repro`, and does
nothing where the row is complete.
"""

import sys
from dataclasses import asdict
from pathlib import Path

from pipeline.console import complain, say
from pipeline.files import digest
from pipeline.harness.delivery import row_spec, run_occasion
from pipeline.harness.ending import show_ending
from pipeline.harness.live import RunClock
from pipeline.harness.published import check_folder
from pipeline.harness.stop import leave, obeying
from pipeline.kept import read_kept, write_kept
from pipeline.params import load_params
from pipeline.paths import ARTIFACTS, PARAMS, state_dir
from pipeline.settings import Publish, read_settings, with_environment
from pipeline.tracking import RowSpec
from pipeline.tracking.content import MODEL_CARD
from pipeline.tracking.models import Registry
from pipeline.tracking.publish import publish_bounded, published_here, send
from pipeline.tracking.store import StoreUnavailableError
from stages import STAGES


def main() -> int:
    """Publish the state of the working copy."""
    try:
        folders = {name: ARTIFACTS / name for name in STAGES if (ARTIFACTS / name / "stage.json").exists()}
        for folder in folders.values():
            check_folder(folder, state=state_dir())
        show_ending(folders, report=ARTIFACTS / "report" / "report.html")
        params = load_params(PARAMS)
        settings = read_settings(params, source=str(PARAMS))
        runtime = with_environment(settings.runtime)
        if not runtime.tracking:
            say("publish", "runtime.tracking=false: nothing is sent to MLflow")
            return 0
        drawn = folders.pop("report", None)
        clock = RunClock(params, runtime)
        occasion = run_occasion(clock.since)
        spec = row_spec(params=params, folders=folders, drawn=drawn, runtime=runtime, occasion=occasion)
        run_id = published_here(spec)
        if run_id is None or not _is_registered(spec, run_id, settings.publish):
            publish_bounded(spec, [sys.executable, "-m", "stages.publish"], wait_s=runtime.tracking_s)
        clock.stop()
    except (ValueError, OSError) as error:
        complain("publish", str(error))
        return 1
    return 0


def _send(file: Path) -> None:
    """Talk to MLflow: what `main` starts, and ends where a server keeps it waiting."""
    publish = read_settings(load_params(PARAMS), source=str(PARAMS)).publish
    send(file, on_sent=lambda spec, run_id: _register(spec, run_id, publish))


def _registered(spec: RowSpec, run_id: str, publish: Publish) -> Path:
    return spec.state_dir / "registered" / f"{digest([spec.tracking_uri, run_id, asdict(publish)])}.json"


def _is_registered(spec: RowSpec, run_id: str, publish: Publish) -> bool:
    """Whether there is nothing to register, or that was done here before with the same settings."""
    return publish.register is None or read_kept(_registered(spec, run_id, publish)) is not None


def _register(spec: RowSpec, run_id: str, publish: Publish) -> None:
    if _is_registered(spec, run_id, publish):
        return
    from pipeline.deployment.promotion import promote  # imports SciPy and MLflow

    card = None if spec.drawn is None else spec.drawn / MODEL_CARD
    description = card.read_text(encoding="utf-8") if card is not None and card.is_file() else ""
    try:
        text = promote(Registry(spec.tracking_uri), run_id, publish, description=description)
    except StoreUnavailableError as error:
        say("publish", f"the model is not registered: {error}; the next `publish` tries again")
        return
    if text is None:
        say("publish", f"publish.register={publish.register}: the row has no model")
        return
    say("publish", text)
    write_kept(_registered(spec, run_id, publish), {"run_id": run_id, "text": text})


if __name__ == "__main__":
    if sys.argv[1:2] == ["--spec"]:
        _send(Path(sys.argv[2]))
    else:
        leave(obeying("publish", main))
