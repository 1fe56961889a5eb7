"""The recipe's last two steps in one job, for sweeps: `python -m stages.tail -m full_train.cycle_len=1,2`.

Reads what `lr_find_full` and the stages before it made; runs `full_train` and `tta_evaluate` into the job's folder.
"""

from pipeline.harness.start import main
from stages.full_train import STAGE as FULL_TRAIN
from stages.tta_evaluate import STAGE as TTA_EVALUATE

if __name__ == "__main__":
    main(FULL_TRAIN, TTA_EVALUATE, name="tail")
