"""The channel statistics that a model's images are normalised with. Needs nothing, so that a card can hold it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of each channel (red, green, blue), of pixels scaled to 0..1."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
