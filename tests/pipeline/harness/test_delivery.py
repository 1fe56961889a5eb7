"""What the harness hands to the delivery."""

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.files import write_json
from pipeline.harness.delivery import Occasion, follow_spec, publish_now, row_spec, run_occasion
from pipeline.harness.live import RunClock, live_row
from pipeline.params import to_yaml
from pipeline.settings import Runtime
from pipeline.timings import Span, write_timings
from stages import STAGES
from tests.conftest import Run

pytestmark = pytest.mark.xdist_group("recipe")


@pytest.fixture(autouse=True)
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: Run) -> Path:
    """A working copy that holds the settings of the recipe, and its own state."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    (tmp_path / "params.yaml").write_text(to_yaml(recipe.params))
    return tmp_path


def folders_of(run: Run, *stages: str) -> dict[str, Path]:
    return {stage: run.folder(stage) for stage in stages or STAGES}


def digest_of(run: Run, stage: str) -> str:
    return str(json.loads((run.folder(stage) / "stage.json").read_text())["digest"])


def test_the_row_of_a_run(recipe: Run, runtime: Runtime, checkout: Path) -> None:
    write_timings(checkout / ".unfreeze", digest_of(recipe, "ingest"), {"seconds": 5.0}, Span(50, 55))
    write_timings(checkout / ".unfreeze", digest_of(recipe, "full_train"), {"seconds": 30.0}, Span(110, 140))
    occasion = Occasion(["full_train.lr=0.01"], since=100)
    spec = row_spec(
        params=recipe.params,
        folders=folders_of(recipe),
        runtime=runtime,
        drawn=Path("artifacts/report"),
        occasion=occasion,
    )
    root = Path(recipe.params["data"]["root"]).name
    accuracy = recipe.metrics("tta_evaluate")["test"]["plain"]["accuracy"]
    assert spec.name == f"{root} · resnet18 · lr=0.01 · {100 * accuracy:.1f} %"
    assert spec.scores["train_seconds"] == 30
    assert (spec.started, spec.ended) == (100, 140)  # ingest comes from an earlier run
    assert spec.drawn == checkout / "artifacts" / "report"
    assert spec.changed == ["full_train.lr"]
    assert len(spec.description) == 5
    assert spec.dataset is not None
    assert (spec.dataset.name, spec.dataset.counts["classes"]) == (root, 3)
    assert spec.tags["changed"] == "full_train.lr=0.01"
    assert spec.tags["images"] == str(sum(recipe.metrics("ingest")["images"].values()))
    assert "sweep" not in spec.tags
    assert sum(not name.startswith("curve/") for name in spec.scores) <= 30


def test_equal_images_have_an_equal_digest(recipe: Run, runtime: Runtime) -> None:
    def digest() -> str | None:
        spec = row_spec(
            params=recipe.params,
            folders=folders_of(recipe, "ingest"),
            runtime=runtime,
            drawn=None,
            occasion=Occasion(),
        )
        return None if spec.dataset is None else spec.dataset.digest

    assert digest() == digest()
    assert 0 < len(digest() or "") <= 36


def test_a_row_that_is_followed_belongs_to_the_process_that_runs_the_stages(recipe: Run, runtime: Runtime) -> None:
    spec = follow_spec(stage="full_train", runtime=runtime, journal=Path("journal.jsonl"), since=12.0)
    assert spec.started == 12
    assert spec.params | {"publish": recipe.params["publish"]} == recipe.params
    assert spec.tags["changed"] == "nothing"
    assert spec.owner.count(":") == 2


def test_what_an_experiment_changed_is_held_beside_the_settings(checkout: Path) -> None:
    write_json(checkout / "overrides.json", {"overrides": {"full_train.lr": 0.01, "data.root": None}})
    assert run_occasion(None).tags == {"changed": "full_train.lr=0.01, data.root=null"}


def test_a_saved_set_of_changes_is_called_by_its_name(checkout: Path) -> None:
    (checkout / "conf" / "experiment").mkdir(parents=True)
    (checkout / "conf" / "experiment" / "photos.yaml").write_text("defaults:\n  - override /data: folder\n")
    (checkout / "conf" / "experiment" / "quick.yaml").write_text("full_train:\n  num_cycles: 1\n")
    held = {"full_train.num_cycles": 1, "full_train.lr": 0.01}
    write_json(checkout / "overrides.json", {"overrides": held})
    assert run_occasion(None).changed == ["experiment=quick", "full_train.lr=0.01"]
    write_json(checkout / "overrides.json", {"overrides": held | {"full_train.num_cycles": 2}})
    assert run_occasion(None).changed == ["full_train.num_cycles=2", "full_train.lr=0.01"]


def test_a_run_begins_once_until_its_row_is_written(recipe: Run, runtime: Runtime) -> None:
    clock = RunClock(recipe.params, runtime)
    assert clock.since is None
    clock.start()
    began = clock.since
    RunClock(recipe.params, runtime).start()  # the same run goes on after a kill
    assert clock.since == began
    assert RunClock({**recipe.params, "seed": 9}, runtime).since is None
    clock.stop()
    assert clock.since is None


def test_a_run_that_failed_is_over_and_one_that_was_stopped_goes_on(recipe: Run, runtime: Runtime) -> None:
    clock = RunClock(recipe.params, runtime)
    clock.start()
    with pytest.raises(KeyboardInterrupt), live_row("full_train", recipe.params, runtime):
        raise KeyboardInterrupt
    assert clock.since is not None
    with pytest.raises(ValueError, match="broken"), live_row("full_train", recipe.params, runtime):
        raise ValueError("broken")
    assert clock.since is None


@pytest.mark.slow
def test_a_job_is_published_from_a_process_of_its_own(recipe: Run, runtime: Runtime, checkout: Path) -> None:
    runtime = replace(runtime, tracking_uri=f"sqlite:///{checkout / 'mlflow.db'}")
    occasion = Occasion(["full_train.cycle_len=2"], job="runs/full_train/a/0", sweep="runs/full_train/a")
    folders = folders_of(recipe, "ingest", "full_train")
    publish_now(params=recipe.params, folders=folders, runtime=runtime, drawn=None, occasion=occasion)
    with closing(sqlite3.connect(checkout / "mlflow.db")) as store:
        (name,) = store.execute("SELECT name FROM runs").fetchone()
        tags = dict(store.execute("SELECT key, value FROM tags").fetchall())
        metrics = {key for (key,) in store.execute("SELECT key FROM latest_metrics")}
    accuracy = recipe.metrics("full_train")["valid_accuracy"]
    assert name == f"cycle_len=2 · valid {100 * accuracy:.1f} %"
    assert (tags["sweep"], tags["job"]) == ("runs/full_train/a", "runs/full_train/a/0")
    assert tags["mlflow.note.content"].count("\n") == 4
    assert {"valid_loss", "valid_accuracy", "kept_cycle", "epochs_run", "curve/full_train/valid_loss"} <= metrics
