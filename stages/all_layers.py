"""The recipe's steps 5 to 8 in one job, for sweeps over rates and sizes: `python -m stages.all_layers -m sweep=rates`.

Reads what `head_train_augmented` and the stages before it made; runs `unfreeze`, `lr_find_full` and `full_train` into
the job's folder. No test image is looked at: the objective is the loss on valid.
"""

from pipeline.harness.start import main
from stages.full_train import STAGE as FULL_TRAIN
from stages.lr_find_full import STAGE as LR_FIND_FULL
from stages.unfreeze import STAGE as UNFREEZE

STAGES = (UNFREEZE, LR_FIND_FULL, FULL_TRAIN)

if __name__ == "__main__":
    main(*STAGES, name="all_layers")
