"""Several classifiers as one, whose probabilities are the mean of theirs."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Ensemble(nn.Module):
    """Inputs to the logarithm of the members' mean probabilities [N, num_classes].

    Their softmax is that mean, so that whoever takes them for logits is right.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, inputs: Tensor) -> Tensor:
        return mean_log_probs([member(inputs).float() for member in self.members])


def mean_log_probs(logits: Sequence[Tensor]) -> Tensor:
    """The logarithm of the mean of the probabilities that each of `logits` [N, num_classes] stands for."""
    return torch.stack([each.log_softmax(1) for each in logits]).logsumexp(0) - math.log(len(logits))
