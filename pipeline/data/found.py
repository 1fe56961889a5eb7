"""What a source finds: files that should be samples, and what else is among them."""

from dataclasses import dataclass

SPLITS = ("train", "valid", "test")
UNLABELLED = "unlabelled"
"""The split of images without a label: they are predicted and used for nothing else."""
SPLIT_NAMES = {
    **{split: split for split in (*SPLITS, UNLABELLED)},
    **{"training": "train", "val": "valid", "validation": "valid", "testing": "test", "unlabeled": UNLABELLED},
}
"""Accepted names of a split's folder, or of a table's entry, in lower case."""


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file that a source found."""

    path: str
    """Relative to the source's root, with forward slashes."""
    label: str
    """Empty for unlabelled images."""
    split: str | None
    """None if the source assigns no split."""
    group: str = ""
    """All files of a group go into the same split; empty if the source knows no groups."""
    problem: str = ""
    """Why the file cannot be used, if that is known without opening it."""
    ignored: bool = False
    """Whether the file was never meant to be a sample, or is listed in `data.drop`: then its problem does not count as
    a rejection."""
