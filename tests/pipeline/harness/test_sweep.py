"""A sweep's folder follows from what is asked for, and the same command goes on from what its jobs have left."""

import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.files import read_json, write_json
from pipeline.harness.checked import read_checked
from pipeline.harness.compose import compose, run_app
from pipeline.harness.job_record import job_record
from pipeline.harness.stage import Stage
from pipeline.harness.sweep import Sweep
from pipeline.harness.typed import group_names
from pipeline.params import flatten
from stages import all_layers, head
from stages.registry import ALL
from tests.conftest import PROJECT, put

CONF = PROJECT / "conf"
TAIL = [stage for stage in ALL if stage.name in ("full_train", "tta_evaluate")]
SWEEPS = sorted((CONF / "sweep").glob("*.yaml"))


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(CONF, tmp_path / "conf")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def start(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[str, list[str]]]:
    """Sweep over `seed=1,2`; gives the folder, and the jobs that ran. A job of `failing` fails."""

    def run(*more: str, made_from: str = "x", failing: Sequence[str] = ()) -> tuple[str, list[str]]:
        ran: list[str] = []
        folders: list[Path] = []

        def job(params: dict[str, Any], folder: Path, overrides: list[str]) -> float:
            del params, folder
            ran.append(overrides[0])
            if overrides[0] in failing:
                raise ValueError("not liked")
            return 0.5

        def end(sweep: Path) -> bool:
            folders.append(sweep)
            return not failing

        words = more if any(word.startswith("seed=") for word in more) else ("seed=1,2", *more)
        monkeypatch.setattr("sys.argv", ["app", "-m", *words])
        well = run_app(job, name="app", conf=checkout / "conf", made_from=lambda: made_from, end_sweep=end)
        assert well == (not failing)
        return str(folders[0]), ran

    return run


def test_the_same_command_runs_only_what_is_not_done(start: Callable[..., tuple[str, list[str]]]) -> None:
    folder, ran = start(failing=["seed=2"])
    assert ran == ["seed=1", "seed=2"]
    assert folder.startswith("runs/app/")
    assert start() == (folder, ["seed=2"])
    assert start() == (folder, [])
    assert [read_json(Path(folder) / str(i) / "job.json")["status"] for i in range(2)] == ["done"] * 2
    assert start(made_from="y") == (folder, ["seed=1", "seed=2"]), "its inputs or code have changed"


def test_jobs_of_all_batches_are_numbered_on(start: Callable[..., tuple[str, list[str]]]) -> None:
    folder, _ = start("seed=1,2,3", "hydra.sweeper.max_batch_size=2")
    jobs = {file.parent.name: read_json(file)["overrides"] for file in Path(folder).glob("*/job.json")}
    assert jobs == {str(i): [f"seed={i + 1}"] for i in range(3)}


def test_the_folder_follows_from_what_is_asked_for(start: Callable[..., tuple[str, list[str]]], checkout: Path) -> None:
    folder, _ = start("seed=choice(1)")
    file = checkout / "conf" / "config.yaml"
    file.write_text(file.read_text() + "# a comment\n")
    assert start("seed=choice(1)", "runtime.threads=2", "hydra.sweeper.max_batch_size=1") == (folder, [])
    others = [start("seed=choice(1)", "full_train.cycle_len=2")[0], start("seed=choice(2)")[0]]
    file.write_text(file.read_text().replace("lr_ratio: 3.0", "lr_ratio: 4.0"))
    others.append(start("seed=choice(1)")[0])
    assert len({folder, *others}) == 4


def test_a_folder_that_holds_another_sweep_is_refused(
    start: Callable[..., tuple[str, list[str]]], capfd: pytest.CaptureFixture[str]
) -> None:
    assert start("seed=choice(1)", "hydra.sweep.dir=here")[0] == "here"
    with pytest.raises(SystemExit):
        start("seed=choice(4)", "hydra.sweep.dir=here")
    assert "here holds another sweep" in capfd.readouterr().err


def _sweep(folder: Path, launch: Callable[[Sequence[Sequence[str]], int], object]) -> Sweep:
    return Sweep(folder, "app", "stages.app", "asked", "x", launch, True)


def test_a_launcher_that_fails_takes_no_other_job_with_it(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Job 1 kills the process that it runs in, as one that takes too much memory; job 2 fails."""
    launched: list[list[str]] = []

    def launch(jobs: Sequence[Sequence[str]], first: int) -> None:
        del first
        launched.append([job[-1].rpartition("=")[2] for job in jobs])
        for job in jobs[:2]:
            folder = checkout / job[-1].rpartition("=")[2]
            try:
                with job_record(folder, program="stages.app", overrides=job[:-1]):
                    if job[0] == "seed=2":
                        raise ValueError("not liked")
                    if job[0] == "seed=1":
                        raise KeyboardInterrupt
            except (ValueError, KeyboardInterrupt):
                pass
        raise RuntimeError("a worker was killed")

    _sweep(checkout, launch).run({i: [f"seed={i}"] for i in range(4)})
    assert launched == [["0", "1", "2", "3"], ["1", "2", "3"], ["1", "3"], ["1"], ["1"]]
    states = [read_json(checkout / str(i) / "job.json")["status"] for i in range(4)]
    assert states == ["done", "started", "failed", "done"]
    said = capsys.readouterr().err
    assert said.count("job 2 failed: not liked; `python -m stages.app seed=2` repeats it") == 1
    assert "the launcher failed (RuntimeError: a worker was killed)" in said


def test_a_job_with_a_damaged_folder_is_not_taken_as_done(checkout: Path) -> None:
    def launch(jobs: Sequence[Sequence[str]], first: int) -> None:
        for number, job in enumerate(jobs, first):
            with job_record(checkout / str(number), program="stages.app", overrides=job[:-1]):
                write_json(checkout / str(number) / "ran.json", True)

    sweep = _sweep(checkout, launch)
    sweep.run({0: ["seed=0"]})
    (checkout / "0" / "ran.json").unlink()
    sweep.run({0: ["seed=0"]})
    assert not (checkout / "0" / "ran.json").exists()
    (checkout / "0" / "full_train").mkdir()
    (checkout / "0" / "full_train" / "stage.json").write_text("{}")
    sweep.run({0: ["seed=0"]})
    assert (checkout / "0" / "ran.json").exists()


def jobs_of(file: Path) -> Iterator[list[str]]:
    """Overrides that give each value of a ready sweep once."""
    params = yaml.safe_load(file.read_text())["hydra"]["sweeper"]["params"]
    columns = [[f"{key}={value}" for value in _values(text)] for key, text in params.items()]
    for row in zip_longest(*columns):
        yield [value or column[0] for value, column in zip(row, columns, strict=True)]


def _values(text: str) -> list[str]:
    """The values of a choice, or the ends of a range."""
    ends = re.search(r"interval\((.*?),(.*?)\)", text)
    return list(ends.groups()) if ends else re.findall(r"\[.*?\]|[^,]+", text)


@pytest.mark.parametrize("file", SWEEPS, ids=lambda file: file.stem)
def test_a_ready_sweep_has_jobs_with_valid_settings_that_its_program_reads(file: Path) -> None:
    programs: dict[str, Sequence[Stage[Any]]] = {"stages.tail": TAIL, "stages.full_train": TAIL[:1], "pipeline": ALL}
    programs |= {"stages.head": head.STAGES, "stages.all_layers": all_layers.STAGES}
    (program,) = re.findall(rf"python -m (\S+) -m (?:hydra/sweeper=search )?sweep={file.stem}", file.read_text())
    stages = programs[program]
    upstream = {name for stage in stages for name in stage.upstream} - {stage.name for stage in stages}
    while more := {name for stage in ALL if stage.name in upstream for name in stage.upstream} - upstream:
        upstream |= more
    fixed = {key for stage in ALL if stage.name in upstream for key in stage.settings}
    base = compose([f"sweep={file.stem}"], conf=CONF)
    for job in jobs_of(file):
        values = base
        for key, _, value in (word.partition("=") for word in job):
            if key in group_names(CONF):
                values = values | {key: yaml.safe_load((CONF / key / f"{value}.yaml").read_text())}
            else:
                values = put(values, key, yaml.safe_load(value))
        read_checked(values, source=" ".join(job))
        before, after = flatten(base), flatten(values)
        changed = {key for key in after if before[key] != after[key]}
        assert not changed & fixed, f"{program} reads what was made with other values of these"
        assert changed <= {key for stage in stages for key in stage.settings}
