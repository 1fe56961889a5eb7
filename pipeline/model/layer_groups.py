"""Layer groups: the backbone cut into parts of equal depth, with the head as the last group.

The recipe trains earlier groups at lower rates, because early layers detect what is common to all images. For resnet18
and `num_groups=3` the cut is the usual one: stem, layer1, layer2 | layer3, layer4 | head.
"""

from dataclasses import dataclass
from itertools import pairwise

from torch import nn

from pipeline.model.backbone import Backbone
from pipeline.model.batch_norm import batch_norms
from pipeline.model.classifier import Classifier

_EXPAND_SHARE = 0.5
"""A block that holds more than this share of the backbone's parameters is divided, and so is a plain container."""

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True)
class LayerGroup:
    """A named part of the model: its modules, in order of depth, and its parameters, by name."""

    name: str
    modules: dict[str, nn.Module]
    parameters: dict[str, nn.Parameter]

    @property
    def num_parameters(self) -> int:
        return sum(p.numel() for p in self.parameters.values())


def split_layer_groups(model: Classifier, num_groups: int) -> list[LayerGroup]:
    """Cut `model` into `num_groups` groups in order of depth; each parameter is in exactly one.

    Raises ValueError if the backbone has too few blocks with parameters for so many groups.
    """
    blocks = backbone_blocks(model.backbone)
    num_parts = num_groups - 1
    if not 1 <= num_parts <= len(blocks):
        raise ValueError(
            f"unfreeze.num_groups={num_groups} does not fit {model.backbone.arch}: from 2 to {len(blocks) + 1}"
        )
    bounds = [(2 * i * len(blocks) + num_parts) // (2 * num_parts) for i in range(num_parts + 1)]  # halves round up
    parts = [[m for block in blocks[lo:hi] for m in block] for lo, hi in pairwise(bounds)]
    names = ["backbone"] if num_parts == 1 else ["early", "middle"] if num_parts == 2 else _numbered(num_parts)
    groups = [_group(model, n, dict(part)) for n, part in zip(names, parts, strict=True)]
    groups.append(_group(model, "head", {"head": model.head}))
    return _with_bare_parameters(model, groups)


def backbone_blocks(backbone: Backbone) -> list[list[tuple[str, nn.Module]]]:
    """The backbone's blocks that have parameters, in order of depth: (name in the classifier, module).

    A normalisation layer on its own belongs to the layer before it.
    """
    total = sum(p.numel() for p in backbone.parameters())

    def open_up(name: str, module: nn.Module) -> list[tuple[str, nn.Module]]:
        size = sum(p.numel() for p in module.parameters())
        if size == 0:
            return []
        children = list(module.named_children())
        if children and (type(module) in _CONTAINERS or size > _EXPAND_SHARE * total):
            return [block for n, child in children for block in open_up(f"{name}.{n}", child)]
        return [(name, module)]

    blocks: list[list[tuple[str, nn.Module]]] = []
    for name, module in (b for n, child in backbone.named_children() for b in open_up(f"backbone.{n}", child)):
        only_scales = all(p.dim() == 1 for p in module.parameters())
        if only_scales and blocks:
            blocks[-1].append((name, module))
        else:
            blocks.append([(name, module)])
    return blocks


def freeze_to(groups: list[LayerGroup], first_trained: int, *, batch_norm: bool) -> None:
    """Freeze the groups before `first_trained` (no gradients) and unfreeze the others.

    Without `batch_norm` the batch norms of the unfrozen groups stay frozen too.
    """
    for i, group in enumerate(groups):
        for parameter in group.parameters.values():
            parameter.requires_grad_(i >= first_trained)
        for module in group.modules.values():
            for norm in batch_norms(module):
                norm.requires_grad_(batch_norm and i >= first_trained)


def _numbered(count: int) -> list[str]:
    return [f"backbone_{i}" for i in range(count)]


def _group(model: Classifier, name: str, modules: dict[str, nn.Module]) -> LayerGroup:
    prefixes = tuple(f"{n}." for n in modules)
    return LayerGroup(name, modules, {n: p for n, p in model.named_parameters() if n.startswith(prefixes)})


def _with_bare_parameters(model: Classifier, groups: list[LayerGroup]) -> list[LayerGroup]:
    """Add parameters that belong to a divided module itself (ViT's class token) to the first group: they act first."""
    grouped = {n for group in groups for n in group.parameters}
    bare = {n: p for n, p in model.named_parameters() if n not in grouped}
    first = groups[0]
    return [LayerGroup(first.name, first.modules, bare | first.parameters), *groups[1:]]
