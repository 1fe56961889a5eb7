import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from benchmarks.against_fastai import __main__ as bench
from benchmarks.against_fastai import limit, load
from benchmarks.against_fastai.load import FailedRunError, busy_seconds, refusals, run_watched, share_of_others
from benchmarks.against_fastai.ours import read_results
from benchmarks.against_fastai.table import Row, format_table, rows_of
from benchmarks.against_fastai.work import Work, digits
from pipeline.params import to_yaml
from stages import STAGES
from tests.conftest import Compose, Run


def _pair(wall_s: float, fastai_s: float, **seconds: float) -> dict[str, Any]:
    run = {"cpu_s": 1.0, "largest_mb": 1.0, "accuracy": 0.5, "accuracy_tta": 0.5}
    ours = {"images": {"train": 100, "valid": 20}, "epochs": 7, "seconds": {"precompute": 1.0, **seconds}}
    return {
        "import_torch_s": 2.0,
        "ours": {**run, **ours, "wall_s": wall_s},
        "fastai": {**run, "wall_s": fastai_s, "seconds": {"full_train": 20.0}},
    }


def _rows(*pairs: dict[str, Any]) -> dict[str, Row]:
    found = rows_of(pairs, {"train_limit": 100.0, "train_step": 94.0, "forward_limit": 120.0}, goal=0.5)
    return {row.what: row for row in found}


def test_a_ratio_is_the_median_of_pairs_and_not_the_ratio_of_medians() -> None:
    seconds = {"lr_find_full": 1.0, "full_train": 10.0}
    rows = _rows(_pair(40, 80, **seconds), _pair(60, 200, **seconds), _pair(90, 100, **seconds))
    wall = rows["whole recipe, wall s"]
    assert (wall.ours, wall.other, wall.ratio) == (60, 100, 0.5)
    assert wall.each == (0.5, 0.3, 0.9)
    assert wall.is_met


def test_each_goal_has_its_verdict() -> None:
    rows = _rows(_pair(46.0, 80.0, lr_find_full=1.5, full_train=10.0))
    verdicts = {what: (round(row.ratio or 0, 3), row.is_met) for what, row in rows.items() if row.goal is not None}
    assert verdicts == {
        "whole recipe, wall s": (0.575, False),
        "lr_find_full / full_train, s": (0.15, False),
        "outside stages / 11 import torch, s": (1.523, False),  # (46 - 12.5) / 22
        "full_train, its step / limit, images/s": (0.94, False),
        "precompute, whole stage / limit, images/s": (1.0, True),  # 120 images in a second
    }
    assert rows["full_train, s"].other == 20.0
    assert rows["precompute, s"].other is None
    table = format_table("digits", [*rows.values()])
    assert table.count(" missed ") == 4
    assert table.count(" met ") == 1
    assert len({len(line) for line in table.splitlines()[2:]}) == 1


def test_what_others_use_is_what_the_machine_used_less_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.against_fastai.load.num_cores", lambda: 4)
    ticks = "cpu  100 10 50 9999 9999 4 6 30 7 7\ncpu0 1 1 1 1 1 1 1 1 0 0\n"
    assert busy_seconds(ticks) == 200 / os.sysconf("SC_CLK_TCK")
    assert share_of_others(30.0, 10.0, 10.0) == 0.5
    assert share_of_others(9.9, 10.0, 10.0) == 0.0


def test_a_program_is_measured_with_its_children_and_what_outlives_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "LOOK_S", 0.01)
    burn = [sys.executable, "-S", "-c", "import time\nwhile time.process_time() < 0.3: pass"]
    leave = (
        f"import subprocess; subprocess.run({burn}); subprocess.Popen({burn}, start_new_session=True); print('left')"
    )
    watched = run_watched([sys.executable, "-S", "-c", leave], cwd=tmp_path, env={}, log=tmp_path / "log")
    assert watched.cpu_s >= 0.6
    assert watched.wall_s >= 0.3
    assert (tmp_path / "log").read_text() == "left\n"
    with pytest.raises(FailedRunError, match=r"ended with 3.*\nno such rate"):
        run_watched(["sh", "-c", "echo no such rate; exit 3"], cwd=tmp_path, env={}, log=tmp_path / "log")


def test_a_loaded_machine_is_refused_by_name() -> None:
    assert refusals(load=0.5, others=[("before ours", 0.05)], cores=2) == []
    assert refusals(load=0.51, others=[("before ours", 0.01), ("during ours", 0.051)], cores=2) == [
        "the load average was 0.51 at the start; at most 0.5 on 2 cores",
        "others used 5.1% of the processor during ours; at most 5%",
    ]


@dataclass
class Machine:
    """What the benchmark is told of the machine, in place of what it would measure."""

    at_start: float = 0.0
    during: float = 0.0
    """The share of others."""
    ran: list[str] = field(default_factory=list)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    told, pair = Machine(), _pair(40.0, 80.0, lr_find_full=1.0, full_train=10.0)

    def side(name: str, facts: dict[str, Any]) -> Callable[..., tuple[load.Watched, dict[str, Any]]]:
        def run(*_: object) -> tuple[load.Watched, dict[str, Any]]:
            told.ran.append(name)
            return load.Watched(facts.get("wall_s", 1.0), 1.0, 1.0, 0.0, told.during, 2.0), facts

        return run

    monkeypatch.setattr(sys, "argv", ["bench", "--fastai-python", "python"])
    monkeypatch.setattr(bench, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(bench, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(bench, "PROJECT", tmp_path)
    monkeypatch.setattr(bench, "uncommitted", lambda: False)
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 0.0, 0.0))
    monkeypatch.setattr(bench, "others_now", lambda: told.at_start)
    monkeypatch.setattr(bench, "time_import_torch", lambda: 1.0)
    monkeypatch.setattr(bench, "_works", lambda _: [_work(tmp_path)])
    monkeypatch.setattr(bench, "run_ours", side("ours", pair["ours"]))
    monkeypatch.setattr(bench, "run_fastai", side("fastai", pair["fastai"]))
    limits = {"train_limit": 100.0, "train_step": 94.0, "forward_limit": 120.0}
    monkeypatch.setattr(bench, "run_limit", side("limit", limits))
    return told


@pytest.mark.parametrize(("at_start", "during", "ran"), [(0.6, 0.0, []), (0.0, 0.4, ["ours"])])
def test_a_loaded_machine_gets_no_verdict(
    at_start: float,
    during: float,
    ran: list[str],
    machine: Machine,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    machine.at_start, machine.during = at_start, during
    assert bench.main() == 1
    assert machine.ran == ran
    printed = capsys.readouterr()
    assert "No verdict" in printed.err
    assert ("60.0% of the processor before" if at_start else "40.0% of the processor during") in printed.err
    assert not (tmp_path / "results.json").exists()
    assert "goal" not in printed.out


def test_on_a_quiet_machine_the_sides_take_turns_and_other_results_stay(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "results.json").write_text('{"photos": 1, "digits": 2}')
    assert bench.main() == 0
    assert machine.ran == ["ours", "fastai", "fastai", "ours", "ours", "fastai", "limit"]
    assert "0.500 0.500 0.500" in capsys.readouterr().out
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["photos"] == 1
    assert [row["met"] for row in written["digits"]["rows"] if row["what"] == "whole recipe, wall s"] == [True]
    assert [pair["fastai"]["wall_s"] for pair in written["digits"]["pairs"]] == [80.0, 80.0, 80.0]
    assert written["digits"]["machine"]["instruction_sets"]


def test_both_sides_train_for_the_same_epochs_on_the_same_images(tmp_path: Path, compose_conf: Compose) -> None:
    work = digits(tmp_path / "digits", share=0.1)
    settings = compose_conf(*work.settings)
    assert settings["data"]["root"] == work.data
    assert settings["head_train"]["num_cycles"] == work.head_epochs == 2
    assert settings["head_train_augmented"]["num_cycles"] == work.augmented_cycles == 3
    full = settings["full_train"]
    assert (full["num_cycles"], full["cycle_len"], full["cycle_mult"], full["until_overfit"]) == (3, 1, 2, False)
    assert (settings["data"]["batch_size"], settings["data"]["image_size"]) == (work.batch_size, work.image_size)
    assert settings["tta_evaluate"]["views"] == work.tta_views
    files = [file.relative_to(work.data).parts for file in Path(work.data).rglob("*.jpg")]
    assert [sum(split == name for split, _, _ in files) for name in ("train", "valid", "test")] == [107, 36, 36]
    assert len({name for _, _, name in files}) == len(files)


@pytest.mark.xdist_group("recipe")
def test_a_finished_run_is_read_and_has_a_limit(recipe: Run, tmp_path: Path) -> None:
    found = read_results(recipe.artifacts.parent)
    assert [*found["seconds"]] == [*STAGES]
    assert found["epochs"] == 3
    (tmp_path / "artifacts").symlink_to(recipe.artifacts)
    (tmp_path / "params.yaml").write_text(to_yaml(recipe.params))
    rates = limit.measure(tmp_path, seconds=0.0)
    assert [*rates] == ["train_limit", "train_step", "forward_limit"]
    assert min(rates.values()) > 0


def _work(folder: Path) -> Work:
    return Work("digits", str(folder), "resnet18", "none", 64, 64, flip=False, goal=0.5)
