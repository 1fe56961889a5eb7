"""One module per step of the recipe: read inputs, call the library, write outputs."""

import sys

from pipeline.harness.warm import hand_over
from pipeline.stopping import listen

STAGES = (
    "ingest",
    "augment_config",
    "precompute",
    "cross_validate",
    "lr_find_head",
    "head_train",
    "head_train_augmented",
    "unfreeze",
    "lr_find_full",
    "full_train",
    "tta_evaluate",
    "report",
)
"""All stages that make an artifact folder, in order."""

if sys.argv[:1] == ["-m"]:  # `python -m stages.<name>`, which imports this first: loading torch takes seconds
    listen()
    hand_over()
