"""The split: shares are met, small classes are in it, and nothing moves when images come or go."""

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager

import numpy as np
import pytest

from pipeline.data.facts import Facts
from pipeline.data.found import FoundFile
from pipeline.data.manifest import Sample
from pipeline.data.register import Register
from pipeline.data.split import assign_splits, thin_out, unit_hash
from pipeline.settings import Split

SHARES = Split(0.2, 0.2)


def sample(name: str, label: str = "a", *, group: str | None = None, split: str = "") -> Sample:
    return Sample(f"{label}/{name}", label, split, f"{label}{name}" if group is None else group, "", name, 8, 8)


@contextmanager
def registered(given: list[Sample]) -> Iterator[Register]:
    with closing(Register()) as register:
        register.add_found(FoundFile(s.path, s.label, s.split or None, s.group) for s in given)
        seen = (Facts(sha256=s.sha256, width=s.width, height=s.height) for s in given)
        assert all(not facts.problem for facts in register.add_facts(seen))
        yield register


def divide(given: list[Sample], shares: Split, *, seed: int = 0, fraction: float = 1.0) -> list[Sample]:
    with registered(given) as register:
        assign_splits(register, shares, seed=seed)
        thin_out(register, fraction, seed=seed)
        return list(register.samples())


def samples(count: int, label: str = "a") -> list[Sample]:
    return [sample(str(i), label) for i in range(count)]


def sizes(assigned: list[Sample]) -> dict[str, int]:
    return dict(Counter(s.split for s in assigned))


def splits_of(given: list[Sample], seed: int = 0) -> dict[str, str]:
    return {s.path: s.split for s in divide(given, SHARES, seed=seed)}


@pytest.mark.parametrize("seed", range(5))
def test_each_class_has_its_shares_within_chance(seed: int) -> None:
    assigned = divide([s for label in "abcd" for s in samples(500, label)], SHARES, seed=seed)
    for label in "abcd":
        counts = Counter(s.split for s in assigned if s.label == label)
        for split, share in (("train", 0.6), ("valid", 0.2), ("test", 0.2)):
            assert abs(counts[split] - share * 500) < 4 * math.sqrt(500 * share * (1 - share))


def test_hashes_are_uniform() -> None:
    drawn = np.sort([unit_hash(0, str(i)) for i in range(2000)])
    assert np.abs(drawn - np.arange(2000) / 2000).max() < 1.63 / math.sqrt(2000)  # Kolmogorov-Smirnov at 1 %


@pytest.mark.parametrize("count", [20, 60, 120])
def test_small_classes_keep_their_shares(count: int) -> None:
    tolerance = max(1.0, 0.2 * 0.2 * count)
    moved = 0
    for seed in range(20):
        assigned = divide(samples(count) + samples(400, "b"), SHARES, seed=seed)
        counts = Counter(s.split for s in assigned if s.label == "a")
        for split in ("valid", "test"):
            assert abs(counts[split] - 0.2 * count) < tolerance + 1
        plain = {s.path: own_split(seed, s) for s in assigned}
        moved += sum(plain[s.path] != s.split for s in assigned)
    assert 0 < moved < 20 * 0.15 * count  # as few as needed


def own_split(seed: int, of: Sample) -> str:
    """By the group's hash alone."""
    x = unit_hash(seed, of.group)
    return "valid" if x < 0.2 else "test" if x >= 0.8 else "train"


@pytest.mark.parametrize("seed", range(2))
def test_a_new_image_moves_at_most_one_other_and_only_in_its_own_small_class(seed: int) -> None:
    everything = samples(60) + samples(1000, "b")
    whole = splits_of(everything, seed)
    for i in [*range(0, 60, 2), *range(60, 1060, 200)]:
        rest = splits_of(everything[:i] + everything[i + 1 :], seed)
        moved = [path for path, split in rest.items() if whole[path] != split]
        assert len(moved) <= 1
        assert all(path.startswith("a/") for path in moved)
        assert not moved or i < 60


def test_images_that_come_or_go_move_no_other() -> None:
    everything = [s for label in "abc" for s in samples(600, label)]
    whole = splits_of(everything)
    assert splits_of(everything[::-1]) == whole
    for i in range(0, len(everything), 60):
        rest = everything[:i] + everything[i + 1 :]
        assert splits_of(rest) == {path: split for path, split in whole.items() if path != everything[i].path}


def test_a_tiny_class_may_move_its_own_images_only() -> None:
    """With few images the gaps are filled again; the other class stays."""
    large = samples(60, "large")
    before = splits_of(large)
    for count in range(1, 12):
        now = splits_of(large + samples(count, "small"))
        assert {p: s for p, s in now.items() if p in before} == before
        whole = splits_of(large + samples(count + 1, "small"))
        assert sum(whole[p] != s for p, s in now.items()) <= 2


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("count", "expected"), [(1, {"train"}), (2, {"train", "valid"}), (3, None), (7, None)])
def test_small_classes_train_first_then_validate(count: int, expected: set[str] | None, seed: int) -> None:
    assigned = divide(samples(count), SHARES, seed=seed)
    assert set(sizes(assigned)) == (expected or {"train", "valid", "test"})


@pytest.mark.parametrize("seed", range(10))
def test_as_few_as_possible_are_moved(seed: int) -> None:
    """Five images: those that moved are no more than the splits that were empty by plain thresholds."""
    given = samples(5)
    plain = {s.path: unit_hash(seed, s.group) for s in given}
    own = {p: "valid" if x < 0.2 else "test" if x >= 0.8 else "train" for p, x in plain.items()}
    counts = Counter(own.values())
    too_many = sum(max(0, counts[split] - 2) for split in ("valid", "test"))  # one is expected, and two are tolerated
    moved = sum(own[p] != s for p, s in splits_of(given, seed).items())
    assert moved == max(too_many, 3 - len(counts))


def test_groups_are_never_divided() -> None:
    given = [sample(f"{i}", label, group=f"patient {i % 9}") for i in range(90) for label in "ab"]
    splits: dict[str, set[str]] = {}
    for s in divide(given, SHARES, seed=0):
        splits.setdefault(s.group, set()).add(s.split)
    assert all(len(found) == 1 for found in splits.values())
    assert {x for found in splits.values() for x in found} == {"train", "valid", "test"}


def test_given_splits_stand_and_a_missing_one_is_cut_from_train() -> None:
    given = [sample(f"t{i}", split="train") for i in range(200)] + [sample(f"v{i}", split="valid") for i in range(9)]
    assigned = divide(given, SHARES, seed=0)
    assert [s.path for s in assigned if s.split == "valid"] == [f"a/v{i}" for i in range(9)]
    assert 20 < sizes(assigned)["test"] < 60


def test_a_change_of_one_share_leaves_the_other_split_alone() -> None:
    def of(split: str, shares: Split) -> set[str]:
        return {s.path for s in divide(samples(200), shares, seed=0) if s.split == split}

    assert of("test", Split(0.1, 0.2)) == of("test", Split(0.5, 0.2))
    assert of("valid", Split(0.2, 0.1)) < of("valid", Split(0.3, 0.3))


def test_fractions_are_nested_and_leave_each_class_ten_images() -> None:
    def thinned(fraction: float) -> list[Sample]:
        return divide(samples(200) + samples(5, "b"), SHARES, fraction=fraction)

    kept = [{s.path for s in thinned(fraction)} for fraction in (0.001, 0.25, 0.5, 1.0)]
    assert kept[0] < kept[1] < kept[2] < kept[3] == {s.path for s in samples(200) + samples(5, "b")}
    assert Counter(s.label for s in thinned(0.001) if s.split == "train") == {"a": 10, "b": 2}
    assert 40 < sizes(thinned(0.5))["train"] < 80
