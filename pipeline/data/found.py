"""What a source finds: files that claim to be samples, and what else lies among them."""

from dataclasses import dataclass

SPLITS = ("train", "valid", "test")
UNLABELLED = "unlabelled"
"""The split of images without a label: they are predicted, and take no part in anything else."""
SPLIT_NAMES = {
    **{split: split for split in (*SPLITS, UNLABELLED)},
    **{"training": "train", "val": "valid", "validation": "valid", "testing": "test", "unlabeled": UNLABELLED},
}
"""What a split's folder, or a table's entry, may be called, in small letters."""


@dataclass(frozen=True, slots=True)
class Found:
    """A file that claims to be a sample."""

    path: str
    """Relative to the source's root, with forward slashes."""
    label: str
    """Empty for the unlabelled."""
    split: str | None
    """None where the split is ours to choose."""
    group: str = ""
    """Files of one group are never divided between splits; empty where the source knows of none."""
    problem: str = ""
    """Why it need not be opened."""
    ignored: bool = False
    """Whether it was never meant to be a sample, so that its problem is nobody's fault."""
