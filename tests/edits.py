"""Kinds of edit that a maintainer makes every day, and what each of them reruns.

The tests replay them on a copy of the code and compare fingerprints. `python -m tests.edits` replays them with
`dvc repro` in the checkout that it is started in, which must be a copy with a finished run: the real thing, in minutes.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

NOTHING = frozenset[str]()
DRAWN = frozenset({"report"})
TRAINING = frozenset({"head_train", "head_train_augmented", "full_train"})
FINDING = frozenset({"lr_find_head", "lr_find_full"})
"""Stages by what their code does."""


@dataclass(frozen=True)
class Edit:
    """A change of text in some files, and the stages whose fingerprint it changes."""

    name: str
    changes: frozenset[str]
    replacements: tuple[tuple[str, str, str], ...]
    """File, old text, new text."""

    @contextmanager
    def made_in(self, root: Path) -> Iterator[None]:
        """Make the change below `root`, and undo it at the end of the block."""
        before = {root / file: (root / file).read_text(encoding="utf-8") for file, _, _ in self.replacements}
        try:
            for file, old, new in self.replacements:
                text = (root / file).read_text(encoding="utf-8")
                assert old in text, f"{file} has no {old!r}: name another text of this kind"
                (root / file).write_text(text.replace(old, new, 1), encoding="utf-8")
            yield
        finally:
            for path, text in before.items():
                path.write_text(text, encoding="utf-8")


def _edit(name: str, changes: frozenset[str], *replacements: tuple[str, str, str]) -> Edit:
    return Edit(name, changes, replacements)


EDITS = (
    _edit(
        "a docstring in learning/",
        NOTHING,
        ("pipeline/learning/loop.py", '"""The one training loop', '"""In other words: the one training loop'),
    ),
    _edit(
        "a docstring in settings.py",
        NOTHING,
        ("pipeline/settings.py", '"""The schema of all settings', '"""In other words: the schema of all settings'),
    ),
    _edit(
        "a comment in data/",
        NOTHING,
        ("pipeline/data/decode.py", "import errno\n", "# A comment that says why.\nimport errno\n"),
    ),
    _edit(
        "an annotation in model/",
        NOTHING,
        ("pipeline/model/tensors.py", "-> dict[str, Tensor]:", "-> 'dict[str, Tensor]':"),
    ),
    _edit(
        "an error text in learning/",
        NOTHING,
        ("pipeline/learning/loop.py", "the loss became {loss}", "after this step the loss was {loss}"),
    ),
    _edit(
        "an error text in settings.py",
        NOTHING,
        ("pipeline/settings.py", "their sum must be below 1", "together they must be less than 1"),
    ),
    _edit(
        "a console line of the harness",
        NOTHING,
        ("pipeline/harness/execute.py", 'say(f"done in ', 'say(f"finished in '),
    ),
    _edit(
        "a console line of a training stage",
        NOTHING,
        ("pipeline/learning/training.py", 'f"cycles of {', 'f"training in cycles of {'),
    ),
    _edit(
        "an MLflow column",
        NOTHING,
        (
            "pipeline/tracking/views.py",
            '    "metrics.`lr_full`",\n',
            '    "metrics.`lr_full`",\n    "params.`seed`",\n',
        ),
    ),
    _edit(
        "a new setting with its default in conf/",
        NOTHING,
        ("pipeline/settings.py", "    until_overfit: bool\n", "    until_overfit: bool\n    warm_start: bool\n"),
        ("conf/config.yaml", "  until_overfit: true\n", "  until_overfit: true\n  warm_start: false\n"),
    ),
    _edit(
        "a comment in conf/",
        NOTHING,
        ("conf/config.yaml", "seed: 0\n", "# Any number.\nseed: 0\n"),
    ),
    _edit("a colour", DRAWN, ("pipeline/report/style.py", '"#0072B2"', '"#0072B3"')),
    _edit(
        "a title in a picture",
        DRAWN,
        ("pipeline/report/training_plots.py", "is kept", "stays"),
    ),
    _edit(
        "the report's template",
        DRAWN,
        ("pipeline/report/html.j2", "<h1>{{ report.title }}</h1>", '<h1 class="title">{{ report.title }}</h1>'),
    ),
    _edit(
        "a formula in learning/",
        TRAINING,
        ("pipeline/learning/snapshots.py", "if new_loss < loss:", "if new_loss <= loss:"),
    ),
    _edit(
        "a formula of the finder",
        FINDING,
        ("pipeline/learning/lr_rules.py", "CLEAR_SHARE = 0.1\n", "CLEAR_SHARE = 0.11\n"),
    ),
    _edit(
        "a formula in model/",
        frozenset({"precompute", "cross_validate", "lr_find_head", "unfreeze", "lr_find_full", "tta_evaluate"})
        | TRAINING,
        ("pipeline/model/head.py", "0.1 * deviation.mean()", "0.2 * deviation.mean()"),
    ),
    _edit(
        "a formula in data/",
        frozenset({"precompute", "head_train_augmented", "lr_find_full", "full_train", "tta_evaluate", "report"})
        | {"ingest", "augment_config"},
        ("pipeline/data/decode.py", "if scale > 1 else", "if scale >= 1 else"),
    ),
)


def main() -> int:
    """Replay every edit that should retrain nothing with `dvc repro`; print what reran, and return 1 if any did."""
    root, wrong = Path.cwd(), 0
    _repro()
    for edit in (e for e in EDITS if e.changes <= DRAWN):
        with edit.made_in(root):
            reran = _repro()
        print(f"{edit.name:45} reran: {', '.join(sorted(reran)) or 'nothing'}", flush=True)
        wrong += bool(reran - edit.changes)
        _repro()
    return int(wrong > 0)


def _repro() -> set[str]:
    """Run `dvc repro`, and return the stages that ran, besides `config` and `publish`, which always do."""
    done = subprocess.run([sys.executable, "-m", "dvc", "repro"], capture_output=True, text=True, check=True)
    stages = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"]
    return {name for name in stages if f"Running stage '{name}'" in done.stdout} - {"config", "publish"}


if __name__ == "__main__":
    sys.exit(main())
