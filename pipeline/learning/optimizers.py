"""Which optimizer trains the whole model, by architecture."""

from pipeline.settings import OptimizerChoice, OptimizerName

ADAMW_FAMILIES = ("vit", "swin", "maxvit", "convnext")
"""Architectures that fine-tune better with AdamW than with SGD, by the beginning of their names.

Source: Kumar et al., "How to fine-tune vision models with SGD", ICLR 2024, arXiv:2211.09359. In vision transformers and
ConvNeXt the gradients of the first ("embedding") layer are much larger than those of the others, and one rate for both
does not suit SGD; ResNets do as well with either. They tried ViT and ConvNeXt; Swin and MaxViT are taken for
transformers.
"""


def choose_optimizer(setting: OptimizerChoice, arch: str) -> OptimizerName:
    """Return the optimizer for `arch`; `setting` is `full_train.optimizer`."""
    if setting != "auto":
        return setting
    return "adamw" if arch.startswith(ADAMW_FAMILIES) else "sgd"
