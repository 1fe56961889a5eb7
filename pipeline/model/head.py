"""The head: the new last layer, which is trained first."""

from contextlib import nullcontext

import torch
from torch import Tensor, nn

from pipeline.model.dropout import Dropout


class Standardise(nn.Module):
    """Subtract from features [N, num_features] their mean over the training images, and divide by their deviation.

    Unlike batch norm it is fixed: the same for a batch of one, and in training as in evaluation. It makes the learning
    rate that suits the head independent of the backbone's scale. A tenth of the mean deviation is added to each, so
    that a feature that hardly varies is not blown up.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("scale", torch.ones(num_features))

    def fit(self, activations: Tensor) -> None:
        """Measure mean and deviation on `activations` [N, num_features]."""
        deviation = activations.std(dim=0, correction=0)
        self.mean.copy_(activations.mean(dim=0))
        self.scale.copy_((deviation + 0.1 * deviation.mean()).clamp_min(1e-6))

    def forward(self, features: Tensor) -> Tensor:
        return (features - self.mean) / self.scale


class Head(nn.Sequential):
    """Features [N, num_features] to logits [N, num_classes]: standardise, dropout, one linear layer.

    It computes in single precision also where the backbone does not: so a head says the same of stored features, and
    its logits are linear in its weights.
    """

    def __init__(self, num_features: int, num_classes: int, *, dropout: float) -> None:
        super().__init__(Standardise(num_features), Dropout(dropout), nn.Linear(num_features, num_classes))

    def forward(self, features: Tensor) -> Tensor:
        device = features.device.type
        is_reduced = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(
            device
        )  # asked, so that an exported graph holds no context
        with torch.autocast(device, enabled=False) if is_reduced else nullcontext():
            logits: Tensor = super().forward(features)  # type: ignore[no-untyped-call]
        return logits


def standardise_of(head: Head) -> Standardise:
    """The head's first layer."""
    first = head[0]
    assert isinstance(first, Standardise)
    return first


def linear_of(head: Head) -> nn.Linear:
    """The head's last layer, which is trained."""
    last = head[2]
    assert isinstance(last, nn.Linear)
    return last


def build_head(activations: Tensor, num_classes: int, *, dropout: float, seed: int) -> Head:
    """Build a new head with random weights for features like `activations` [N, num_features].

    The weights depend on `seed` alone; the global RNG is not used.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = Head(activations.shape[1], num_classes, dropout=dropout)
    standardise_of(head).fit(activations)
    return head


@torch.no_grad()
def start_from_classifier(head: Head, classifier: nn.Linear, activations: Tensor, targets: Tensor) -> None:
    """Initialise the head from the classification layer that was pretrained on the same features.

    Args:
        head: changed in place.
        classifier: the pretrained layer, num_features to the classes of the pretraining.
        activations: [N, num_features] of the training images, with images of every class.
        targets: [N], their classes.

    Let p_c be the mean of the distributions that `classifier` predicts for the images of class c (as in LEEP, Nguyen et
    al. 2020, arXiv:2002.12462), and q the one that it predicts for an image. The head's logit for c is minus the
    Kullback-Leibler divergence KL(p_c || q). It is linear in the classifier's logits, up to a term that is the same for
    all c. So an image goes to the class whose images look most like it to the old classifier, and a class whose images
    look like many things is at no disadvantage (decision 0010).
    """
    standardise, layer = standardise_of(head), linear_of(head)
    of_class = (activations[targets == c] for c in range(layer.out_features))
    seen_as = torch.stack([_mean_answer(classifier, features) for features in of_class])
    entropies = torch.special.entr(seen_as).sum(1)
    seen_as -= seen_as.mean(0)
    weight, bias = seen_as @ classifier.weight.double(), seen_as @ classifier.bias.double() + entropies
    layer.weight.copy_(weight * standardise.scale)
    layer.bias.copy_(bias + weight @ standardise.mean.double())


def _mean_answer(classifier: nn.Linear, features: Tensor) -> Tensor:
    """The mean of the distributions [out_features] that `classifier` predicts for `features`, in parts that fit memory.

    There may be 21,000 classes and thousands of images.
    """
    parts = torch.split(features, max(1, 2**25 // classifier.out_features))
    return torch.stack([classifier(part).double().softmax(1).sum(0) for part in parts]).sum(0) / len(features)
