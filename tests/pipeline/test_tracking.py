"""Rows as an independent reader of the store sees them; killed processes and dead servers are real."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from pipeline.kept import read_kept, write_kept
from pipeline.processes import process_name
from pipeline.tracking import Dataset, FollowSpec, RowSpec, publish_row, store_uri
from pipeline.tracking.content import Content, flat_params
from pipeline.tracking.follow import follow
from pipeline.tracking.open_rows import end_orphans, is_open, note_open, orphans
from pipeline.tracking.spec import row_digest, state_digest
from pipeline.tracking.store import Store, StoreUnavailableError, reachable

# SQLAlchemy warns about MLflow's own table definitions when they are first imported.
pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.xdist_group("tracking")]

NO_SERVER = "http://127.0.0.1:9"
PARAMS = {"seed": 1, "data": {"name": "digits", "split": [0.8, 0.2]}, "full_train": {"lr": "auto", "cycle_len": None}}
STAGES = ("ingest", "lr_find_head", "head_train", "full_train", "tta_evaluate")
NUM_STEPS = 30
SCORES = {"accuracy": 0.5, "valid_loss": 0.25, "lr_head": 0.01, "tta_evaluate/log_loss": 0.3}
DESCRIPTION = ["**Score**: 50.0 % of 8 test images", "**Verdict**: half of it is right"]
STARTED, ENDED = 1_700_000_000.25, 1_700_000_040.5
OWNER = process_name(os.getpid())
"""A process that lives."""

Row = Any
"""An MLflow run."""


def write_stage(folder: Path, *, salt: str = "") -> None:
    """Write a folder as a stage publishes it."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [{"step": i, "values": {"train_loss": i / 7, "valid_loss": len(salt) + i / 3}} for i in range(NUM_STEPS)]
    write_journal(folder / "journal.jsonl", lines)
    (folder / "stage.json").write_text(json.dumps({"stage": folder.name, "digest": f"{folder.name}{salt}"}))
    if folder.name == "tta_evaluate":
        (folder / "model").mkdir(exist_ok=True)
        (folder / "model" / "classes.json").write_text("[]")
        (folder / "predictions.csv").write_text("path,label")


def write_drawn(folder: Path, *, colour: str = "blue") -> None:
    """Write the folder of pictures and the report."""
    for stage in STAGES:
        (folder / stage).mkdir(parents=True, exist_ok=True)
        (folder / stage / "plot.png").write_text(colour)
    (folder / "report.html").write_text(f"<h1>Report in {colour}</h1>")


def with_report_stage(spec: RowSpec, drawn: Path) -> RowSpec:
    """Add the stage that draws, which publishes into the folder of pictures."""
    (drawn / "stage.json").write_text('{"digest": "of these pictures"}')
    return replace(spec, folders={**spec.folders, "report": drawn})


def write_journal(path: Path, lines: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def start(command: str, spec: RowSpec, **options: Any) -> subprocess.Popen[str]:
    file = spec.state_dir / f"{command}-{row_digest(spec)}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    spec.write(file)
    arguments = [sys.executable, "-W", "default", "-m", "pipeline.tracking", command, "--spec", str(file)]
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(arguments, **(streams | options))


def wait_until(holds: Callable[[], object], *, timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"still waiting after {timeout_s} seconds"
        time.sleep(0.2)


def client(spec: RowSpec) -> Any:
    with reachable(spec.tracking_uri):
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=spec.tracking_uri)


def rows(spec: RowSpec, condition: str = "") -> list[Row]:
    with reachable(spec.tracking_uri):
        reader = client(spec)
        experiment = reader.get_experiment_by_name(spec.experiment)
        return list(reader.search_runs([experiment.experiment_id], condition)) if experiment else []


def curve(spec: RowSpec, run_id: str, name: str) -> list[tuple[int, float]]:
    return sorted((m.step, m.value) for m in client(spec).get_metric_history(run_id, name))


def artifacts(spec: RowSpec, run_id: str, folder: str) -> set[str]:
    return {item.path for item in client(spec).list_artifacts(run_id, folder)}


def artifact_text(spec: RowSpec, run_id: str, path: str, target: Path) -> str:
    target.mkdir(exist_ok=True)
    return Path(client(spec).download_artifacts(run_id, path, str(target))).read_text()


def stored_model(spec: RowSpec, row: Row) -> set[str]:
    """The files of the model folder that a row has logged as its one model."""
    [output] = row.outputs.model_outputs
    location = client(spec).get_logged_model(output.model_id).artifact_location
    return {file.name for file in Path(unquote(urlsplit(location).path)).joinpath("data", "model").iterdir()}


TRAIN_LOSS = [(i, i / 7) for i in range(NUM_STEPS)]


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URI of a store shared by all tests of this process, each with its own experiment."""
    return store_uri(tmp_path_factory.mktemp("a store"))


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    """The folder of pictures and the report."""
    return tmp_path / "artifacts" / "report"


@pytest.fixture
def spec(tmp_path: Path, store: str, drawn: Path) -> RowSpec:
    folders = {stage: tmp_path / "artifacts" / stage for stage in STAGES}
    for folder in folders.values():
        write_stage(folder)
    write_drawn(drawn)
    return RowSpec(
        params=PARAMS,
        folders=folders,
        drawn=drawn,
        name="digits · resnet18 · 50.0 %",
        scores=SCORES,
        dataset=Dataset(name="digits", digest="0123456789ab", source="/photos", counts={"images": 8, "train": 5}),
        description=DESCRIPTION,
        started=STARTED,
        ended=ENDED,
        experiment=tmp_path.name,
        tracking_uri=store,
        state_dir=tmp_path / ".unfreeze",
        root=tmp_path,
    )


@pytest.fixture
def follow_spec(spec: RowSpec, tmp_path: Path) -> FollowSpec:
    journal = tmp_path / "scratch" / "journal.jsonl"
    values = {name: getattr(spec, name) for name in RowSpec.__dataclass_fields__}
    return FollowSpec(**values, stage="full_train", journal=journal, parent_pid=os.getpid(), owner=OWNER)


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)


def test_a_row_is_complete(spec: RowSpec) -> None:
    (spec.folders["tta_evaluate"] / "model" / "tta.json").write_text("{}")
    run_id = publish_row(replace(spec, tags={"changed": "full_train.lr=0.01"}))

    (row,) = rows(spec)
    assert row.info.run_id == run_id
    assert row.info.status == "FINISHED"
    assert row.info.run_name == "digits · resnet18 · 50.0 %"
    assert (row.info.start_time, row.info.end_time) == (1_700_000_000_250, 1_700_000_040_500)
    assert row.data.params == flat_params(spec)
    assert {name: value for name, value in row.data.metrics.items() if not name.startswith("curve/")} == SCORES
    assert row.data.tags["changed"] == "full_train.lr=0.01"
    assert row.data.tags["mlflow.note.content"] == "".join(f"- {line}\n" for line in DESCRIPTION).strip()
    (used,) = row.inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == ("digits", "0123456789ab")
    assert json.loads(used.dataset.source) == {"uri": "/photos"}
    assert json.loads(used.dataset.profile) == {"images": 8, "train": 5}
    for stage in STAGES:
        assert curve(spec, row.info.run_id, f"curve/{stage}/train_loss") == TRAIN_LOSS
        assert artifacts(spec, row.info.run_id, f"pictures/{stage}") == {f"pictures/{stage}/plot.png"}
    assert artifacts(spec, row.info.run_id, "") == {"evaluation", "pictures", "report.html"}
    assert artifacts(spec, row.info.run_id, "evaluation") == {"evaluation/predictions.csv"}
    assert stored_model(spec, row) == {"classes.json", "tta.json"}


def test_the_table_has_a_view_of_runs_and_one_of_the_latest_sweep(spec: RowSpec) -> None:
    publish_row(spec)
    first = replace(spec, params={"seed": 2}, changed=["seed"], tags={"job": "runs/a/0", "sweep": "runs/a"})
    latest = replace(
        spec, params={"seed": 3}, changed=["full_train.lr"], tags={"job": "runs/b/0", "sweep": "runs/b"}, scores={}
    )
    publish_row(first)
    publish_row(latest)

    (experiment,) = {row.info.experiment_id for row in rows(spec)}
    tags = client(spec).get_experiment(experiment).tags
    views = {key: json.loads(tag) for key, tag in tags.items() if key.startswith("mlflow.sharedViewState.")}
    states = {view["name"]: json.loads(view["state"]) for view in views.values()}
    assert list(states) == ["Runs", "Latest sweep"]
    assert "metrics.`accuracy`" in states["Runs"]["selectedColumns"]
    assert states["Latest sweep"]["selectedColumns"][0] == "params.`full_train.lr`"
    assert "metrics.`accuracy`" not in states["Latest sweep"]["selectedColumns"]  # no test image was used
    shown = {name: [r.data.params["seed"] for r in rows(spec, state["searchFilter"])] for name, state in states.items()}
    assert shown == {"Runs": ["1"], "Latest sweep": ["3"]}
    assert tags["mlflow.experimentKind"] == "custom_model_development"


def test_a_job_that_ran_again_moves_to_the_latest_sweep(spec: RowSpec) -> None:
    run_id = publish_row(replace(spec, tags={"job": "runs/a/0", "sweep": "runs/a"}))
    assert publish_row(replace(spec, tags={"job": "runs/b/3", "sweep": "runs/b"})) == run_id
    assert [row.info.run_id for row in rows(spec, "tags.sweep = 'runs/b'")] == [run_id]


def test_a_state_is_published_once(spec: RowSpec) -> None:
    run_id = publish_row(spec)
    assert publish_row(spec) == run_id
    shutil.rmtree(spec.state_dir)  # as in a fresh clone
    assert publish_row(spec) == run_id
    assert len(rows(spec)) == 1


def test_another_colour_reaches_the_row_that_exists(
    spec: RowSpec, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = with_report_stage(spec, drawn)
    run_id = publish_row(spec)
    assert run_id is not None

    write_drawn(drawn, colour="orange")
    (drawn / "stage.json").write_text('{"digest": "of other pictures"}')
    assert publish_row(spec) == run_id
    assert [row.info.status for row in rows(spec)] == ["FINISHED"]
    for path in ("report.html", "pictures/full_train/plot.png"):
        assert "orange" in artifact_text(spec, run_id, path, tmp_path / "downloads")
    assert curve(spec, run_id, "curve/full_train/train_loss") == TRAIN_LOSS

    monkeypatch.setattr(Store, "log_files", None)  # the third time, nothing is sent
    assert publish_row(spec) == run_id


def test_a_row_that_the_user_deleted_is_published_again(spec: RowSpec) -> None:
    run_id = publish_row(spec)
    client(spec).delete_run(run_id)
    assert publish_row(spec) not in (None, run_id)


def test_publishing_again_does_not_import_mlflow(spec: RowSpec) -> None:
    publish_row(spec)
    file = spec.state_dir / "spec.json"
    spec.write(file)
    program = (
        "import sys; from pathlib import Path; from pipeline.tracking import RowSpec, publish_row; "
        f"print(publish_row(RowSpec.read(Path({str(file)!r})))); print('mlflow' in sys.modules); "
        "import time; print(time.process_time())"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    run_id, imported, seconds = result.stdout.split()
    assert (run_id, imported) == (rows(spec)[0].info.run_id, "False")
    assert float(seconds) < 1.0  # about 0.1 s, 3 s with MLflow


@pytest.mark.slow
def test_points_sent_live_are_not_sent_again(spec: RowSpec, follow_spec: FollowSpec) -> None:
    lines = [json.loads(line) for line in (spec.folders["full_train"] / "journal.jsonl").read_text().splitlines()]
    write_journal(follow_spec.journal, lines[:10])
    assert rows(spec) == []  # makes the store: MLflow's own tables are not made for two at once
    follower = start("follow", follow_spec)
    wait_until(lambda: rows(spec) and rows(spec)[0].data.metrics)
    (row,) = rows(spec)
    assert row.info.status == "RUNNING"
    assert row.data.params == flat_params(spec)

    follow_spec.journal.rename(follow_spec.journal.with_name("moved"))  # publication, with the last points unread
    write_journal(follow_spec.journal.with_name("moved"), lines[10:20])
    assert follower.communicate(timeout=30)[0] == ""
    assert curve(spec, row.info.run_id, "curve/full_train/train_loss") == TRAIN_LOSS[:20]

    assert publish_row(spec) == row.info.run_id
    assert [r.info.status for r in rows(spec)] == ["FINISHED"]
    assert curve(spec, row.info.run_id, "curve/full_train/train_loss") == TRAIN_LOSS
    assert curve(spec, row.info.run_id, "curve/head_train/train_loss") == TRAIN_LOSS


@pytest.mark.slow
def test_a_killed_follower_leaves_a_row_that_publish_completes(spec: RowSpec, follow_spec: FollowSpec) -> None:
    write_journal(follow_spec.journal, [{"step": 0, "values": {"train_loss": 0.0}}])
    assert rows(spec) == []  # makes the store: MLflow's own tables are not made for two at once
    follower = start("follow", follow_spec)
    wait_until(lambda: rows(spec) and rows(spec)[0].data.metrics)
    follower.send_signal(signal.SIGKILL)
    follower.communicate()

    assert publish_row(spec) == rows(spec)[0].info.run_id
    assert [row.info.status for row in rows(spec)] == ["FINISHED"]
    assert curve(spec, rows(spec)[0].info.run_id, "curve/full_train/train_loss") == TRAIN_LOSS


def follow_to_the_end(spec: FollowSpec, *, said: bytes) -> None:
    """Follow a stage that logs one point, says this on the follower's standard input, and ends."""
    write_journal(spec.journal, [{"step": 0, "values": {"train_loss": 0.0}}])
    stdin, held_by_stage = os.pipe()
    os.write(held_by_stage, said)
    os.close(held_by_stage)
    follow(spec, stdin_fd=stdin)
    os.close(stdin)


def dead_owner() -> str:
    with subprocess.Popen(["sleep", "60"]) as process:
        name = process_name(process.pid)
        process.kill()
    return name


@pytest.mark.parametrize(
    ("said", "owner_lives", "expected", "note"),
    [
        (b"DONE", True, ("RUNNING", "true"), "- **Running.**"),
        (b"FAILED", True, ("FAILED", "false"), "- **Failed** in the stage `full_train`."),
        (b"KILLED", True, ("KILLED", "true"), "- **Stopped** before its end."),
        (b"", True, ("KILLED", "true"), "- **Stopped** before its end."),  # kill -9
        (b"DONE", False, ("KILLED", "true"), "- **Stopped** before its end."),
    ],
)
def test_the_row_of_a_run_that_stops_ends_at_once(
    follow_spec: FollowSpec, said: bytes, owner_lives: bool, expected: tuple[str, str], note: str
) -> None:
    follow_to_the_end(replace(follow_spec, owner=OWNER if owner_lives else dead_owner()), said=said)
    (row,) = rows(follow_spec)
    assert (row.info.status, row.data.tags["unfreeze.open"]) == expected
    assert row.data.tags["mlflow.note.content"].startswith(note)
    assert row.info.start_time == 1_700_000_000_250
    assert is_open(follow_spec) is (expected[0] == "RUNNING")


def test_a_run_that_failed_starts_anew_and_one_that_was_killed_goes_on(spec: RowSpec, follow_spec: FollowSpec) -> None:
    follow_to_the_end(follow_spec, said=b"FAILED")
    (failed,) = rows(spec)
    follow_to_the_end(follow_spec, said=b"KILLED")
    (killed,) = rows(spec, "attributes.status = 'KILLED'")
    assert publish_row(spec) == killed.info.run_id != failed.info.run_id
    assert {row.info.status for row in rows(spec)} == {"FAILED", "FINISHED"}


def test_what_kill_9_left_open_is_ended_by_the_next_start(follow_spec: FollowSpec) -> None:
    killed = replace(follow_spec, params={**PARAMS, "seed": 2})
    follow_to_the_end(follow_spec, said=b"DONE")
    follow_to_the_end(killed, said=b"DONE")
    note_open(replace(killed, owner=dead_owner()))  # both stages are done; then the runner of one was killed
    assert [spec.params for spec in orphans(follow_spec.state_dir)] == [killed.params]

    end_orphans(follow_spec.state_dir)
    statuses = {row.data.params["seed"]: row.info.status for row in rows(follow_spec)}
    assert statuses == {"1": "RUNNING", "2": "KILLED"}
    assert list(orphans(follow_spec.state_dir)) == []


def test_a_row_that_no_store_can_end_stays_noted(follow_spec: FollowSpec) -> None:
    away = replace(follow_spec, tracking_uri=NO_SERVER, owner=dead_owner())
    note_open(away)
    with pytest.raises(StoreUnavailableError):
        end_orphans(away.state_dir)
    assert is_open(away)


@pytest.mark.slow
def test_a_follower_without_a_server_warns_once_and_ends(
    follow_spec: FollowSpec, capsys: pytest.CaptureFixture[str]
) -> None:
    away = replace(follow_spec, tracking_uri=NO_SERVER)
    write_journal(away.journal, [{"step": 0, "values": {"train_loss": 0.0}}])
    stdin, held_by_parent = os.pipe()
    threading.Timer(5, os.close, [held_by_parent]).start()
    started = time.monotonic()
    follow(away, stdin_fd=stdin)
    os.close(stdin)
    assert 4.9 <= time.monotonic() - started < 15
    warning = capsys.readouterr().err
    assert warning == (
        f"tracking: {NO_SERVER}: the server does not respond; live updates stopped, `publish` sends the rest\n"
    )


def test_a_dead_server_costs_seconds(spec: RowSpec, capsys: pytest.CaptureFixture[str]) -> None:
    away = replace(spec, tracking_uri=NO_SERVER)
    started = time.monotonic()
    assert publish_row(away) is None
    assert time.monotonic() - started < 15
    warning = capsys.readouterr().err
    assert warning.count("\n") == 1
    assert warning.startswith(f"tracking: {NO_SERVER}: the server does not respond; the row is kept in ")


def test_what_a_store_missed_is_delivered_after_the_next_state(
    spec: RowSpec, drawn: Path, store: str, tmp_path: Path
) -> None:
    spec = with_report_stage(spec, drawn)
    Store(spec)
    home = tmp_path / "home"
    home.write_text("in the way")
    older = replace(spec, tracking_uri=f"sqlite:///{home / 'mlflow.db'}")
    digest = state_digest(older)
    assert publish_row(older) is None
    write_drawn(drawn, colour="orange")
    assert publish_row(older) is None

    home.unlink()
    home.mkdir()
    shutil.copyfile(store.removeprefix("sqlite:///"), home / "mlflow.db")  # quicker than a new one
    for stage in STAGES:
        write_stage(spec.folders[stage], salt="newer")
    write_drawn(drawn, colour="green")
    newer = replace(older, params={**PARAMS, "seed": 2})
    assert publish_row(newer) is not None

    (late,) = rows(older, f"tags.`unfreeze.state` = '{digest}'")
    assert late.info.status == "FINISHED"
    assert late.data.metrics["accuracy"] == 0.5
    assert curve(older, late.info.run_id, "curve/full_train/valid_loss") == [(i, i / 3) for i in range(NUM_STEPS)]
    assert artifacts(older, late.info.run_id, "") == {"evaluation", "pictures", "report.html"}
    assert not late.outputs.model_outputs  # its model was overwritten
    assert artifacts(older, late.info.run_id, "pictures/ingest") == {"pictures/ingest/plot.png"}
    assert "orange" in artifact_text(older, late.info.run_id, "report.html", tmp_path / "downloads")
    assert late.data.tags["unfreeze.stages"] == " ".join(older.folders)
    assert DESCRIPTION[0] in late.data.tags["mlflow.note.content"]
    assert (late.info.start_time, late.info.end_time) == (1_700_000_000_250, 1_700_000_040_500)
    assert late.info.run_name == older.name
    assert len(rows(older)) == 2
    assert list((spec.state_dir / "pending").glob("*")) == []


@pytest.mark.slow
def test_four_processes_can_start_on_a_fresh_store(
    spec: RowSpec, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    one = replace(spec, tracking_uri=store_uri(tmp_path))
    other = replace(one, params={**PARAMS, "seed": 2})
    with reachable(one.tracking_uri):  # imported here once, so that the four forks meet at the database
        fork = multiprocessing.get_context("fork")
    publishers = [fork.Process(target=publish_row, args=[s]) for s in (one, other, one, other)]
    for publisher in publishers:
        publisher.start()
    for publisher in publishers:
        publisher.join(timeout=60)
    assert [publisher.exitcode for publisher in publishers] == [0] * 4
    assert capfd.readouterr().err == ""
    assert sorted(row.data.tags["unfreeze.row"] for row in rows(one)) == sorted(map(row_digest, (one, other)))
    for row in rows(one):
        assert row.info.status == "FINISHED"
        assert curve(one, row.info.run_id, "curve/head_train/train_loss") == TRAIN_LOSS
    assert not (tmp_path / "mlruns").exists()


def test_images_that_another_process_stores_at_the_same_time_are_attached(
    spec: RowSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    with reachable(spec.tracking_uri):
        from sqlalchemy.exc import IntegrityError

        store = Store(spec)
        run_id, send, calls = store.open_row(spec, owner=OWNER), store._client.log_inputs, 0

        def lose_the_race(*arguments: Any, **named: Any) -> None:
            nonlocal calls
            calls += 1
            if calls == 1:
                raise IntegrityError("INSERT INTO datasets", {}, Exception("UNIQUE constraint failed"))
            send(*arguments, **named)

        monkeypatch.setattr(store._client, "log_inputs", lose_the_race)
        store.log_dataset(run_id, Dataset(name="photos", digest="d", source="photos"))
        [attached] = store._client.get_run(run_id).inputs.dataset_inputs
    assert (attached.dataset.name, attached.dataset.digest) == ("photos", "d")


def test_a_row_whose_code_changed_before_it_ended_is_abandoned(spec: RowSpec) -> None:
    with reachable(spec.tracking_uri):
        stale = Store(spec).open_row(spec, owner=OWNER)
        Store(spec).log_points(stale, {("curve/full_train/train_loss", 0): 0.5})
    run_id = publish_row(spec)
    assert {row.info.run_id: row.info.status for row in rows(spec)} == {stale: "KILLED", run_id: "FINISHED"}


def test_stages_that_ran_again_with_equal_results_make_no_second_row(spec: RowSpec) -> None:
    run_id = publish_row(spec)
    with reachable(spec.tracking_uri):
        Store(spec).open_row(spec, owner=OWNER)
    assert publish_row(spec) == run_id
    assert len(rows(spec)) == 1


def test_a_row_that_was_killed_is_marked_and_reopened_by_its_next_run(spec: RowSpec) -> None:
    killed = replace(spec, params={**PARAMS, "seed": 2})
    with subprocess.Popen(["sleep", "60"]) as dead:
        owner = process_name(dead.pid)
        dead.kill()
    with reachable(spec.tracking_uri):
        run_id = Store(killed).open_row(killed, owner=owner)
    publish_row(spec)
    assert [row.info.run_id for row in rows(spec, "attributes.status = 'KILLED'")] == [run_id]
    assert publish_row(killed) == run_id
    assert {row.info.status for row in rows(spec)} == {"FINISHED"}


def test_numbers_that_mlflow_cannot_hold_are_counted() -> None:
    content = Content()
    content.add_journal("full_train", ['{"step": 1, "values": {"a": NaN, "b": Infinity, "c": 1, "d": true, "e@": 2}}'])
    assert content.points == {("curve/full_train/c", 1): 1.0, ("curve/full_train/e_", 1): 2.0}
    assert content.num_dropped == 2


def test_a_curve_holds_what_the_journal_holds_and_nothing_else(spec: RowSpec) -> None:
    """The score of the kept state is no further point: every over-fitted curve would seem to recover."""
    publish_row(replace(spec, scores={"valid_loss": 0.25}))
    (row,) = rows(spec)
    assert curve(spec, row.info.run_id, "curve/full_train/valid_loss") == [(i, i / 3) for i in range(NUM_STEPS)]
    assert curve(spec, row.info.run_id, "valid_loss") == [(0, 0.25)]


def test_settings_are_flat_text(spec: RowSpec) -> None:
    params = flat_params(replace(spec, params={**PARAMS, "model": {"weights": "x" * 7000, "extra": {}}}))
    assert params["data.split"] == "[0.8, 0.2]"
    assert params["full_train.cycle_len"] == "null"
    assert params["full_train.lr"] == "auto"
    assert params["model.extra"] == "{}"
    assert len(params["model.weights"]) < 6000


def test_settings_that_json_cannot_hold_are_written_as_text(spec: RowSpec, tmp_path: Path) -> None:
    odd = replace(spec, params={"data": {"root": Path("/images"), "scale": float("inf"), "sizes": (1, 2)}})
    odd.write(tmp_path / "spec.json")
    assert RowSpec.read(tmp_path / "spec.json").params == {"data": {"root": "/images", "scale": "inf", "sizes": [1, 2]}}
    assert row_digest(RowSpec.read(tmp_path / "spec.json")) == row_digest(odd)


def test_a_spec_survives_its_file(follow_spec: FollowSpec, tmp_path: Path) -> None:
    follow_spec.write(tmp_path / "spec.json")
    assert FollowSpec.read(tmp_path / "spec.json") == follow_spec


def test_a_spec_of_an_older_version_can_be_read(spec: RowSpec, tmp_path: Path) -> None:
    spec.write(tmp_path / "spec.json")
    values = read_kept(tmp_path / "spec.json")
    assert isinstance(values, dict)
    for name in ("name", "scores", "dataset", "description", "started", "ended", "changed"):
        del values[name]
    write_kept(tmp_path / "spec.json", values | {"notes": ["a remark"], "columns": ["metrics.`a`"]})
    assert RowSpec.read(tmp_path / "spec.json").folders == spec.folders


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "sqlite:////here/mlflow.db"),
        ({"DVC_ROOT": "/main"}, "sqlite:////main/mlflow.db"),
        ({"DVC_ROOT": "/main", "MLFLOW_TRACKING_URI": "sqlite:///runs.db"}, "sqlite:////main/runs.db"),
        ({"MLFLOW_TRACKING_URI": "sqlite:////abs/runs.db"}, "sqlite:////abs/runs.db"),
        ({"MLFLOW_TRACKING_URI": "http://server:5000"}, "http://server:5000"),
        ({"MLFLOW_TRACKING_URI": "sqlite:///runs.db?timeout=30"}, "sqlite:////here/runs.db?timeout=30"),
        ({"DVC_ROOT": "/ci/feature%2Fx/what?"}, "sqlite:////ci/feature%252Fx/what%3F/mlflow.db"),
        ({"DVC_ROOT": "/C#-vision/a b"}, "sqlite:////C#-vision/a b/mlflow.db"),
    ],
)
def test_the_store_is_local_unless_named(
    environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert store_uri(Path("/here")) == expected
