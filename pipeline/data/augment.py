"""Augmentation: the settings as torchvision transforms, applied to one image at a time.

The transforms draw from torch's global generator, which is seeded before each view. So a view depends on (seed,
purpose, epoch, sample) and on nothing else.
"""

import math
from dataclasses import asdict
from pathlib import Path

import yaml
from PIL import Image, ImageColor

from pipeline.data.decode import Framing, Held, decode, decode_framed, filter_for
from pipeline.files import write_text
from pipeline.seeds import seed_torch
from pipeline.settings import Augment
from pipeline.vision import InterpolationMode, v2

_RATIO = (3 / 4, 4 / 3)
"""Aspect ratios of a random crop (Szegedy et al. 2014, arXiv:1409.4842, section 6)."""


class Policy:
    """The transforms that turn an image into random views, each `framing.image_size` pixels square."""

    def __init__(self, augment: Augment, framing: Framing) -> None:
        self.framing = framing
        self.flip = augment.flip
        self._crops = augment.crop_min < 1
        self.base_px = math.ceil(framing.image_size / math.sqrt(augment.crop_min))
        """Short side that an image is reduced to: the smallest crop still has `image_size` pixels."""
        self.steps = _steps(augment, framing)
        self._transform = v2.Compose(list(self.steps)) if self.steps else None

    def view(self, image: Image.Image, *, seed: tuple[int | str, ...]) -> Image.Image:
        """Draw a random view of `image`, which comes from `decode_base`. Equal seeds give equal views."""
        if self._transform is None:
            return image
        seed_torch(*seed)
        changed: Image.Image = self._transform(image)
        return changed

    def decode_base(self, path: Path, held: Held | None = None) -> Image.Image:
        """Decode a file at the size that `view` needs. It is never enlarged for crops."""
        if not self._crops:
            return decode_framed(path, self.framing, held)
        image = decode(path, background=self.framing.background, at_least_px=self.base_px, held=held).image
        scale = self.base_px / min(image.size)
        if scale >= 1:
            return image
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        return image.resize(size, filter_for(scale, self.framing))

    def describe(self) -> list[str]:
        """The transforms as text, in order."""
        return [str(step) for step in self.steps]


def _steps(a: Augment, framing: Framing) -> tuple[v2.Transform, ...]:
    """The transforms for these settings; those without an effect are left out."""
    steps: list[v2.Transform] = []
    if a.crop_min < 1:
        steps.append(
            v2.RandomResizedCrop(
                framing.image_size,
                scale=(a.crop_min, 1.0),
                ratio=_RATIO,
                interpolation=InterpolationMode(framing.interpolation),
            )
        )
    if a.flip in ("horizontal", "dihedral"):
        steps.append(v2.RandomHorizontalFlip())
    if a.flip == "dihedral":
        steps.append(v2.RandomVerticalFlip())
        steps.append(v2.RandomApply([v2.RandomRotation((90.0, 90.0))]))
    if a.rotate_deg or a.shift or a.zoom > 1 or a.shear_deg:
        steps += _affine(a, framing)
    if a.brightness or a.contrast:
        steps.append(v2.ColorJitter(brightness=a.brightness, contrast=a.contrast))
    return tuple(steps)


def _affine(a: Augment, framing: Framing) -> list[v2.Transform]:
    """Rotate, shift, scale and shear inside a margin, which fills what comes in from outside."""
    image_size, fill = framing.image_size, ImageColor.getrgb(framing.background)[:3]
    reach = math.sin(math.radians(min(a.rotate_deg, 45) + a.shear_deg)) / 2 + a.shift + (a.zoom - 1) / 2
    margin = min(math.ceil(reach * image_size), image_size - 1)
    turn = v2.RandomAffine(
        degrees=a.rotate_deg,
        translate=(a.shift * image_size / (image_size + 2 * margin),) * 2 if a.shift else None,
        scale=(1 / a.zoom, a.zoom) if a.zoom > 1 else None,
        shear=a.shear_deg or None,
        interpolation=InterpolationMode.BILINEAR,
        fill=fill,
    )
    mode = "reflect" if a.border == "reflect" else "constant"
    return [v2.Pad(margin, fill=fill, padding_mode=mode), turn, v2.CenterCrop(image_size)]


def write_policy(path: Path, augment: Augment, framing: Framing) -> None:
    """Write the policy as YAML: the settings to build it from, and the resulting transforms as text."""
    text = yaml.safe_dump(
        {
            "framing": {name: value for name, value in asdict(framing).items() if name != "image_size"},
            "augment": asdict(augment),
            "train": Policy(augment, framing).describe(),
            "valid": [f"{framing.fit} to {framing.image_size} px"],
        },
        sort_keys=False,
    )
    write_text(path, text)


def read_policy(path: Path, *, image_size: int) -> Policy:
    """Read the file that `write_policy` wrote, for views of `image_size` pixels."""
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    return Policy(Augment(**values["augment"]), Framing(image_size, **values["framing"]))
