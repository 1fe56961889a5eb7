"""Several classifiers as one: its probabilities are the mean of theirs."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Ensemble(nn.Module):
    """Inputs to the logarithm of the members' mean probabilities [N, num_classes].

    These can be used as logits: their softmax is that mean.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, inputs: Tensor) -> Tensor:
        return mean_log_probs([member(inputs).float() for member in self.members])


def mean_log_probs(logits: Sequence[Tensor]) -> Tensor:
    """The logarithm of the mean probabilities [N, num_classes], from the logits [N, num_classes] of each member."""
    return torch.stack([each.log_softmax(1) for each in logits]).logsumexp(0) - math.log(len(logits))
