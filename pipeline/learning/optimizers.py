"""Which optimizer trains the whole model, by architecture."""

from pipeline.model.timm_backbone import timm_family
from pipeline.model.timm_name import is_timm
from pipeline.settings import OptimizerChoice, OptimizerName

ADAMW_FAMILIES = ("vit", "swin", "maxvit", "convnext")
"""Architectures of torchvision that fine-tune better with AdamW than with SGD, by the beginning of their names.

Source: Kumar et al., "How to fine-tune vision models with SGD", ICLR 2024, arXiv:2211.09359. In vision transformers and
ConvNeXt the gradients of the first ("embedding") layer are much larger than those of the others, and one rate for both
does not suit SGD; ResNets do as well with either. They tried ViT and ConvNeXt; Swin and MaxViT are taken for
transformers.
"""

TIMM_ADAMW_FAMILIES = {
    *("vision_transformer", "vision_transformer_hybrid", "vision_transformer_relpos", "vision_transformer_sam"),
    *("beit", "deit", "eva", "naflexvit", "deepseek_vit", "gemma4_vit", "vitamin"),
    *("swin_transformer", "swin_transformer_v2", "swin_transformer_v2_cr", "maxxvit", "convnext"),
    *("cait", "coat", "convit", "crossvit", "davit", "gcvit", "hiera", "hieradet_sam2", "levit", "mvitv2", "nest"),
    *("nextvit", "pit", "pvt_v2", "tiny_vit", "tnt", "twins", "visformer", "volo", "xcit"),
    *("edgenext", "efficientformer", "efficientformer_v2", "metaformer", "mobilevit"),
}
"""The same for timm, by the modules that define its architectures: ConvNeXt, and networks with attention."""


def choose_optimizer(setting: OptimizerChoice, arch: str) -> OptimizerName:
    """Return the optimizer for `arch`; `setting` is `full_train.optimizer`."""
    if setting != "auto":
        return setting
    better = timm_family(arch) in TIMM_ADAMW_FAMILIES if is_timm(arch) else arch.startswith(ADAMW_FAMILIES)
    return "adamw" if better else "sgd"
