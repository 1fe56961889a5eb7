"""How many images a step sees, and how large they are."""

from pipeline.settings import BatchSize, ImageTraining


def count_batch(wanted: BatchSize | None, default: BatchSize, num_samples: int) -> int:
    """Images per optimizer step: `wanted`, or `default` if it is None; `full` is all of them."""
    chosen = default if wanted is None else wanted
    return num_samples if chosen == "full" else min(chosen, num_samples)


def first_size(wanted: int | tuple[int, ...] | None, default: int) -> int:
    """The size of the first cycle's images, in pixels."""
    return wanted[0] if isinstance(wanted, tuple) else wanted or default


def epoch_sizes(settings: ImageTraining, default: int) -> list[int]:
    """The size of images in each epoch, in pixels; `default` if the stage sets none."""
    wanted = settings.image_size or default
    sizes = wanted if isinstance(wanted, tuple) else (wanted,) * settings.num_cycles
    epochs = [settings.cycle_len * settings.cycle_mult**k for k in range(settings.num_cycles)]
    return [size for size, count in zip(sizes, epochs, strict=True) for _ in range(count)]
