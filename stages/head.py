"""Which backbone? The recipe's first steps in one job: `python -m stages.head -m model.arch=resnet18,mobilenet_v2`.

Reads what `ingest` made; runs `precompute`, `lr_find_head`, `head_train` and `cross_validate` into the job's folder.
Its objective is the log loss of `cross_validate`: it tells apart backbones that make the same few mistakes, which
accuracy does not, and is measured on all images of train and valid, each by a head that has not seen it.
"""

from pipeline.harness.start import main
from stages.cross_validate import STAGE as CROSS_VALIDATE
from stages.head_train import STAGE as HEAD_TRAIN
from stages.lr_find_head import STAGE as LR_FIND_HEAD
from stages.precompute import STAGE as PRECOMPUTE

STAGES = (PRECOMPUTE, LR_FIND_HEAD, HEAD_TRAIN, CROSS_VALIDATE)

if __name__ == "__main__":
    main(*STAGES, name="head")
