"""All stages that make an artifact folder, in order; `stages.STAGES` has their names alone, and loads nothing."""

from typing import Any

from pipeline.harness.stage import Stage
from stages import (
    augment_config,
    cross_validate,
    full_train,
    head_train,
    head_train_augmented,
    ingest,
    lr_find_full,
    lr_find_head,
    precompute,
    report,
    tta_evaluate,
    unfreeze,
)

ALL: tuple[Stage[Any], ...] = (
    ingest.STAGE,
    augment_config.STAGE,
    precompute.STAGE,
    cross_validate.STAGE,
    lr_find_head.STAGE,
    head_train.STAGE,
    head_train_augmented.STAGE,
    unfreeze.STAGE,
    lr_find_full.STAGE,
    full_train.STAGE,
    tta_evaluate.STAGE,
    report.STAGE,
)
