"""What is remembered of each evaluated run, so that the next one can be compared with it.

The folders of a run are overwritten by the next. What comparisons read of it is small, and is kept in
`.unfreeze/runs/<digest>/`: the last `KEPT` runs, by the digest of their evaluation.
"""

import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

from pipeline.comparison.paired import answers_of, compare_answers
from pipeline.comparison.runs import Run, read_run
from pipeline.comparison.table import differing_settings
from pipeline.files import atomic_folder, copy_file, folder_digest, write_text
from pipeline.kept import read_kept, write_kept
from pipeline.params import to_yaml
from pipeline.paths import PARAMS
from pipeline.report.facts import Before
from pipeline.report.scores import Score, read_score

KEPT = 20
EVALUATED = "tta_evaluate"
READ = {
    EVALUATED: ("stage.json", "metrics.json", "answers.csv"),
    "full_train": ("stage.json", "metrics.json", "cycles.json", "valid.csv"),
}
MADE = "made.json"


def remember(run: Run, params: dict[str, Any], made: float) -> None:
    """Keep what comparisons read of an evaluated run with these settings, made at this time (seconds since 1970)."""
    target = _folder(run)
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(target) as draft:
        for stage, files in READ.items():
            (draft / stage).mkdir()
            for file in (run.stages[stage] / name for name in files if stage in run.stages):
                if file.exists():
                    copy_file(file, draft / stage / file.name)
        write_text(draft / PARAMS.name, to_yaml(params))
        write_kept(draft / MADE, {"made": made, "digest": folder_digest(draft)})
    for old in _remembered(run)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def run_before(run: Run) -> Before | None:
    """Compare an evaluated run with the last one that was made before it here; None if there is none."""
    own, earlier = _folder(run), _remembered(run)
    if own in earlier:
        earlier = earlier[: earlier.index(own)]
    score = read_score(run.stages)
    if not earlier or score is None:
        return None
    before = read_run(earlier[-1])
    then = read_score(before.stages)
    return None if then is None else _compared(before, then, made_of(earlier[-1]), run, score)


def date_of(made: float) -> str:
    """A time in seconds since 1970, as a local date."""
    return datetime.fromtimestamp(made).strftime("%-d %b %Y, %H:%M")


def made_of(folder: Path) -> float:
    """When a remembered run was made."""
    return float((read_kept(folder / MADE) or {"made": 0.0})["made"])


def _compared(before: Run, then: Score, made: float, run: Run, score: Score) -> Before:
    change = compare_answers(answers_of(before, then.split), answers_of(run, score.split))
    old, new = before.settings, run.settings
    return Before(
        date=date_of(made),
        accuracy=then.accuracy,
        change=None if change is None else change.accuracy,
        p=None if change is None else change.accuracy_p,
        num_images=0 if change is None else change.num_images,
        changed=[f"{key}: {old.get(key)} -> {new.get(key)}" for key in differing_settings([old, new])],
    )


def _folder(run: Run) -> Path:
    digest: str = run.json(EVALUATED, "stage.json")["digest"]
    return run.state / "runs" / digest[:20]


def _remembered(run: Run) -> list[Path]:
    """The folders of remembered runs, the oldest first. Those that are damaged are removed."""
    folders = sorted(path for path in (run.state / "runs").glob("[!.]*") if path.is_dir())
    for folder in folders:
        if not _is_whole(folder):
            shutil.rmtree(folder, ignore_errors=True)
    return sorted((folder for folder in folders if folder.exists()), key=made_of)


def _is_whole(folder: Path) -> bool:
    known = read_kept(folder / MADE)
    return known is not None and known["digest"] == folder_digest(folder, without=MADE)
