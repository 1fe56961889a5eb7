"""A table of runs: ranked by valid, told apart by paired tests, and honest where they cannot be."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.comparison.files import write_summary
from pipeline.comparison.runs import expand, read_run
from pipeline.comparison.table import Summary, differing_settings, short_names, summarise
from pipeline.comparison.texts import Failed, csv_rows, findings, markdown, terminal_lines
from pipeline.files import write_json
from pipeline.report import style
from tests.pipeline.comparison.conftest import write_job

NOISE = np.random.default_rng(0).normal(0, 0.3, 40)


def losses(mean: float, *, noise: float = 0.0) -> list[float]:
    return list(mean + noise * (NOISE - NOISE.mean()))


@pytest.fixture
def summary(checkout: Path) -> Summary:
    """Clearly best, not clearly worse, and clearly worse."""
    jobs = [
        write_job(checkout, "0", settings={"full_train.lr": 0.3}, losses=losses(0.9), wrong=range(10), seconds=30),
        write_job(checkout, "1", settings={"full_train.lr": 0.1}, losses=losses(0.50), seconds=30),
        write_job(checkout, "2", settings={"full_train.lr": 0.2}, losses=losses(0.52, noise=1.0), kept=[0]),
    ]
    return summarise([read_run(job) for job in jobs])


def test_the_lowest_loss_on_valid_is_first_and_only_what_differs_is_shown(summary: Summary) -> None:
    assert [row.differing for row in summary.rows] == [{"full_train.lr": lr} for lr in (0.1, 0.2, 0.3)]
    assert [row.verdict for row in summary.rows[1:]] == ["no clear difference", "worse"]
    assert [row.kept for row in summary.rows] == ["1 of 1", "before", "1 of 1"]
    assert [row.seconds for row in summary.rows] == [30.0, 10.0, 30.0]
    worst = summary.rows[2]
    assert (worst.score.split, worst.score.accuracy, worst.score.num_images) == ("valid", 0.75, 40)
    assert worst.against_best is not None
    assert worst.against_best.loss == pytest.approx(0.4)
    assert worst.against_best.only_first == 10


def test_the_terminal_table_fits_80_columns_and_says_what_to_type(summary: Summary) -> None:
    lines = terminal_lines(summary, use_winner="dvc exp run -S full_train.lr=0.1")
    assert max(map(len, lines)) <= 80
    assert [line.split() for line in lines[:4]] == [
        ["lr", "epochs", "kept", "valid", "loss", "valid", "accuracy", "s", "vs", "best"],
        ["0.1", "2", "1", "of", "1", "0.5000", "100.0", "%", "(91.2–100.0)", "30", "best"],
        ["0.2", "2", "before", "0.5200", "100.0", "%", "(91.2–100.0)", "10", "unclear"],
        ["0.3", "2", "1", "of", "1", "0.9000", "75.0", "%", "(60–86)", "30", "worse"],
    ]
    text = " ".join(lines)
    assert "finds 1 of 2 clearly worse than the first; no clear difference to the other 1." in text
    assert "lr=0.2 takes 10 s instead of 30 s." in text
    assert "1 of 3 kept the model as it was before training" in text
    assert lines[-1] == "  dvc exp run -S full_train.lr=0.1"


def test_all_that_kept_the_state_before_tie(checkout: Path) -> None:
    jobs = [write_job(checkout, str(i), settings={"seed": i}, kept=[0]) for i in range(4)]
    summary = summarise([read_run(job) for job in jobs])
    (said,) = findings(summary)
    assert said.startswith("All 4 runs tie: in none was a cycle clearly better on valid than the model before training")
    assert [row.verdict for row in summary.rows[1:]] == ["no clear difference"] * 3


def test_a_group_that_was_chosen_by_name_is_one_setting(checkout: Path) -> None:
    zooms = {"none": 1.0, "side_on": 1.1}
    jobs = [
        write_job(checkout, name, settings={"augment.zoom": zoom, "augment.flip": name, "seed": i})
        for i, (name, zoom) in enumerate(zooms.items())
    ]
    for job in jobs:
        write_json(job / "job.json", {"overrides": [f"augment={job.name}", "~base"]})
    rows = summarise([read_run(job) for job in jobs]).rows
    assert [row.differing for row in rows] == [{"seed": i, "augment": name} for i, name in enumerate(zooms)]
    write_json(jobs[1] / "job.json", {"overrides": ["augment=none", "augment.zoom=1.1"]})
    assert "augment.zoom" in summarise([read_run(job) for job in jobs]).differing


def test_many_settings_are_put_above_the_scores(checkout: Path) -> None:
    names = ["data.root", "model.weights", "augment.crop_min", "augment.rotate_deg", "full_train.image_size"]
    jobs = [write_job(checkout, str(i), settings=dict.fromkeys(names, f"a-rather-long-value-{i}")) for i in range(2)]
    lines = terminal_lines(summarise([read_run(job) for job in jobs]))
    assert lines[0] == "1. image_size=a-rather-long-value-0 root=a-rather-long-value-0 ..."
    assert max(map(len, lines)) <= 80


def test_test_scores_are_shown_but_choose_nothing(checkout: Path) -> None:
    good = write_job(checkout, "0", losses=losses(0.3), test_wrong=range(8), settings={"seed": 1})
    bad = write_job(checkout, "1", losses=losses(0.6), test_wrong=[], settings={"seed": 2})
    first, second = summarise([read_run(bad), read_run(good)]).rows
    assert (first.run.folder, first.score.split, first.score.accuracy) == (good, "test", 0.8)
    assert second.score.accuracy == 1.0


def test_runs_on_other_images_are_not_tested_against_each_other(checkout: Path) -> None:
    job, other = write_job(checkout, "0"), write_job(checkout, "1", settings={"seed": 3})
    record = other / "full_train" / "stage.json"
    write_json(record, {"settings": {}, "inputs": [{"stage": "ingest", "file": None, "digest": "x"}], "digest": "y"})
    summary = summarise([read_run(job), read_run(other)])
    assert [row.verdict for row in summary.rows[1:]] == ["?"]
    assert "no test tells them apart" in next(iter(findings(summary)))


def test_failed_jobs_are_listed_with_the_command_that_repeats_them(summary: Summary) -> None:
    failed = [Failed("3", "failed: full_train.lr=9 is too high", "python -m stages.full_train full_train.lr=9")]
    lines = terminal_lines(summary, failed=failed)
    assert lines[-3:] == [
        "Job 3 failed: full_train.lr=9 is too high",
        "To repeat it:",
        "  python -m stages.full_train full_train.lr=9",
    ]
    page = markdown(summary, title="Sweep", use_winner="dvc repro", failed=failed)
    assert "```sh\npython -m stages.full_train full_train.lr=9\n```" in page
    assert "| lr | epochs | kept | valid loss | valid accuracy | s | vs best |" in page


def test_the_table_for_programs_has_full_names_and_plain_numbers(summary: Summary) -> None:
    header, best, *_ = csv_rows(summary)
    row = dict(zip(header, best, strict=True))
    assert (row["full_train.lr"], row["valid_loss"], row["accuracy"], row["verdict"]) == (0.1, 0.5, 1.0, "best")


def test_a_full_grid_of_two_settings_is_a_heat_map_and_others_are_bars(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(style, "_DPI", 40)
    grid = [(lr, n) for lr in (0.1, 0.2) for n in (1, 2)]
    jobs = [
        write_job(checkout, str(i), settings={"full_train.lr": lr, "full_train.cycle_len": n}, losses=losses(0.5 + i))
        for i, (lr, n) in enumerate(grid)
    ]
    runs = [read_run(job) for job in jobs]
    pictures = {}
    for name, some in (("grid", runs), ("bars", runs[:3]), ("alone", runs[:1])):
        (tmp_path / name).mkdir()
        files = write_summary(tmp_path / name, summarise(some), title=name)
        assert [file.name for file in files] == ["summary.md", "summary.csv", "summary.png"]
        with Image.open(files[2]) as image:
            pictures[name] = image.size
    assert len(set(pictures.values())) == 3


def test_only_settings_that_change_results_differ() -> None:
    a = {"seed": 0, "runtime.workers": 1, "full_train.lr": "auto"}
    assert differing_settings([a, a | {"runtime.workers": 9}]) == []
    assert differing_settings([a, a | {"full_train.lr": 0.1}, a]) == ["full_train.lr"]
    assert differing_settings([a, {"seed": 0}]) == ["full_train.lr"]


def test_names_are_short_where_they_stay_clear() -> None:
    names = short_names(["full_train.lr", "head_train.lr", "seed"])
    assert names == {"full_train.lr": "full_train.lr", "head_train.lr": "head_train.lr", "seed": "seed"}
    assert short_names(["full_train.lr"]) == {"full_train.lr": "lr"}


def test_a_sweep_stands_for_its_jobs_in_the_order_of_their_numbers(checkout: Path) -> None:
    for name in ("10", "2", "0"):
        write_json(write_job(checkout, name) / "job.json", {})
    sweep = checkout / "runs" / "sweep"
    (sweep / "3").mkdir()
    write_json(sweep / "3" / "job.json", {})  # failed: nothing in it
    assert [folder.name for folder in expand([sweep])] == ["0", "2", "10"]
    assert list(expand([sweep / "2"])) == [sweep / "2"]


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no run: name a job's folder"):
        read_run(tmp_path)


def test_more_than_two_settings_are_drawn_as_lines_over_an_axis_each(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(style, "_DPI", 40)
    for i in range(4):
        settings = {"full_train.lr": 10.0**-i, "model.arch": f"net{i % 2}", "full_train.cycle_len": i, "seed": None}
        write_job(checkout, str(i), settings=settings, losses=losses(0.5 + i / 10))
    summary = summarise([read_run(job) for job in sorted((checkout / "runs" / "sweep").iterdir())])
    drawn: list[dict[str, object]] = []
    monkeypatch.setattr("pipeline.report.summary_plot.plot_parallel", lambda _path, **told: drawn.append(told))
    write_summary(tmp_path, summary, title="parallel")
    (told,) = drawn
    assert told["settings"] == ["seed", "lr", "cycle_len", "arch"] or told["settings"] == [
        *short_names(summary.differing).values()
    ]
    monkeypatch.undo()
    monkeypatch.setattr(style, "_DPI", 40)
    *_, picture = write_summary(tmp_path, summary, title="parallel")
    with Image.open(picture) as image:
        assert image.size[0] == 360


def test_jobs_are_ranked_by_their_objective_where_that_is_not_the_loss_of_what_they_trained(checkout: Path) -> None:
    jobs = [write_job(checkout, str(i), settings={"seed": i}, losses=losses(0.3 + i / 10)) for i in range(2)]
    for job, loss in zip(jobs, (0.9, 0.8), strict=True):
        write_json(job / "job.json", {"overrides": [], "objective": {"name": "cross_validate/log_loss", "value": loss}})
    summary = summarise([read_run(job) for job in jobs])
    assert [(row.differing["seed"], row.objective, row.verdict) for row in summary.rows] == [
        (1, 0.8, "?"),
        (0, 0.9, "lower loss"),
    ]
    assert terminal_lines(summary)[0].split()[:3] == ["seed", "log", "loss"]
    header, best, _ = csv_rows(summary)
    assert dict(zip(header, best, strict=True))["cross_validate/log_loss"] == 0.8
    for job in jobs:
        write_json(job / "job.json", {"overrides": [], "objective": {"name": "full_train/valid_loss", "value": 0.1}})
    assert summarise([read_run(job) for job in jobs]).ranked_by is None
