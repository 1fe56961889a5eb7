"""Which backbone? The recipe's first steps in one job: `python -m stages.head -m model.arch=resnet18,mobilenet_v2`.

Reads what `ingest` made; runs `precompute`, `lr_find_head`, `head_train` and `cross_validate` into the job's folder. Its
objective is the log loss of `cross_validate`, on images that no head has seen: unlike accuracy it tells apart backbones
that make the same few mistakes, and unlike `head_train`'s loss on valid it uses train and valid and chooses nothing.
"""

from pipeline.harness.start import main
from stages.cross_validate import STAGE as CROSS_VALIDATE
from stages.head_train import STAGE as HEAD_TRAIN
from stages.lr_find_head import STAGE as LR_FIND_HEAD
from stages.precompute import STAGE as PRECOMPUTE

STAGES = (PRECOMPUTE, LR_FIND_HEAD, HEAD_TRAIN, CROSS_VALIDATE)

if __name__ == "__main__":
    main(*STAGES, name="head")
