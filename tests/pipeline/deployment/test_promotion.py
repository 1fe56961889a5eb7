"""When the alias moves: by an exact paired test on the same test images, or because a person says so."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from scipy.stats import binomtest

from pipeline.deployment.promotion import compare, promote, read_answers
from pipeline.settings import Publish
from pipeline.tracking.models import Registry, Version


def write_answers(path: Path, hits: Sequence[bool], *, label: str = "cat", other_images: int = 0) -> Path:
    """`predictions.csv` for images that are all of class `label`; the last `other_images` are others than usual."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "sha256", "label", "plain", "tta"])
        for i, hit in enumerate(hits):
            digest = f"other{i}" if i >= len(hits) - other_images else f"digest{i}"
            writer.writerow([f"{path.parent.name}/{i}.jpg", digest, label, label if hit else "dog", "dog"])
    return path


def hits(*, gained: int, lost: int, both: int = 20) -> tuple[list[bool], list[bool]]:
    """Which images the new and the old model classify correctly."""
    pairs = [(True, False)] * gained + [(False, True)] * lost + [(True, True)] * both + [(False, False)]
    return [new for new, _ in pairs], [old for _, old in pairs]


@dataclass
class Kept(Registry):
    """A registry in memory, of versions whose runs have left `predictions.csv` in `folder/<run>`."""

    folder: Path
    versions: list[str] = field(default_factory=list)
    now: Version | None = None
    notes: dict[str, str] = field(default_factory=dict)

    def register(self, run_id: str, name: str, *, description: str) -> Version | None:
        del description
        if run_id == "no-model":
            return None
        if run_id not in self.versions:
            self.versions.append(run_id)
        return Version(name, str(self.versions.index(run_id) + 1), run_id)

    def champion(self, name: str) -> Version | None:
        del name
        return self.now

    def make_champion(self, version: Version) -> None:
        self.now = version

    def note(self, version: Version, text: str) -> None:
        self.notes[version.number] = text

    def artifact(self, run_id: str, path: str, scratch: Path) -> Path | None:
        del scratch
        file = self.folder / run_id / path
        return file if file.exists() else None


@pytest.fixture
def registry(tmp_path: Path) -> Kept:
    kept = Kept(tmp_path)
    new, old = hits(gained=12, lost=2)
    even, _ = hits(gained=2, lost=12)
    for run_id, answers in (("old", old), ("better", new), ("worse", even)):
        write_answers(tmp_path / run_id / "evaluation" / "predictions.csv", answers)
    write_answers(tmp_path / "others" / "evaluation" / "predictions.csv", new, other_images=3)
    write_answers(tmp_path / "relabelled" / "evaluation" / "predictions.csv", new, label="bird")
    return kept


def run(registry: Kept, run_id: str, how: str = "better") -> str | None:
    return promote(registry, run_id, Publish("photos", how), description="")  # type: ignore[arg-type]


def test_the_first_version_becomes_champion_and_stays_it(registry: Kept) -> None:
    assert run(registry, "old") == "version 1 of photos becomes the champion: there was none"
    assert run(registry, "old") == "version 1 of photos is the champion: models:/photos@champion"
    assert registry.notes == {"1": "version 1 of photos becomes the champion: there was none"}


def test_a_better_one_takes_its_place(registry: Kept) -> None:
    run(registry, "old")
    p = binomtest(12, 14).pvalue
    assert run(registry, "better") == (
        "version 2 of photos becomes the champion: better than version 1 on the same 35 test images: 91.4% correct "
        f"instead of 62.9% (gained 12, lost 2, p = {p:.2g})"
    )
    assert registry.now == Version("photos", "2", "better")
    told = run(registry, "worse") or ""
    assert "version 3 of photos does not become the champion: not clearly better than version 2" in told
    assert registry.now.number == "2"
    assert registry.notes["3"] == told


@pytest.mark.parametrize(("gained", "lost", "better"), [(6, 0, True), (5, 0, False), (0, 9, False), (9, 1, True)])
def test_the_test_is_the_exact_one(tmp_path: Path, gained: int, lost: int, better: bool) -> None:
    new, old = (
        read_answers(write_answers(tmp_path / f"{i}.csv", hit)) for i, hit in enumerate(hits(gained=gained, lost=lost))
    )
    assert (binomtest(gained, gained + lost).pvalue < 0.05 and gained > lost) == better
    assert compare(new, old, champion="version 1").better == better


@pytest.mark.parametrize(
    ("run_id", "told"),
    [
        ("others", "its test images or their labels are not those of version 1 (32 images in common of 35 and 35)"),
        ("relabelled", "its test images or their labels are not those of version 1"),
        ("nothing-left", "the run of version 2 of photos has no evaluation/predictions.csv"),
    ],
)
def test_what_cannot_be_compared_does_not_move_it(registry: Kept, run_id: str, told: str) -> None:
    run(registry, "old")
    assert told in (run(registry, run_id) or "")
    assert registry.now == Version("photos", "1", "old")
    assert "publish.promote=always (before: version 1)" in (run(registry, run_id, "always") or "")
    assert registry.now.run_id == run_id


def test_never_is_never(registry: Kept) -> None:
    assert run(registry, "old", "never") == "version 1 of photos does not become the champion: publish.promote=never"
    assert registry.now is None
    assert run(registry, "no-model") is None


def test_copies_of_an_image_are_counted_one_by_one(tmp_path: Path) -> None:
    file = tmp_path / "predictions.csv"
    file.write_text("path,sha256,label,plain\na,x,cat,cat\nb,x,cat,dog\nc,y,,dog\n")
    answers = read_answers(file)
    assert {key: answer.correct for key, answer in answers.items()} == {("x", 0): True, ("x", 1): False}
