"""Training, evaluation and prediction see the same pixels of a file."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.data.augment import Policy
from pipeline.data.decode import Framing, decode, decode_framed, fit_image
from pipeline.data.images import Images, normalise, open_images_of
from pipeline.data.manifest import Manifest, Sample, Samples
from pipeline.data.normalisation import Normalisation
from pipeline.evaluation.tta import ImageFile, predict_plain
from pipeline.model.compute import Computation
from pipeline.settings import Augment
from tests.pipeline.data.wide_gamut import wide_profile

IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
NO_CHANGE = Augment("none", 0.0, 0.0, 1.0, 0.0, "reflect", 1.0, 0.0, 0.0)

files = st.fixed_dictionaries(
    {
        "mode": st.sampled_from(["RGB", "L", "CMYK", "RGBA", "P", "I;16"]),
        "size": st.tuples(st.integers(1, 150), st.integers(1, 150)),
        "orientation": st.sampled_from([1, 3, 6]),
        "profile": st.booleans(),
        "seed": st.integers(0, 99),
    }
)
framings = st.builds(
    Framing,
    image_size=st.sampled_from([8, 16, 33]),
    fit=st.sampled_from(["zoom", "pad", "squish"]),
    background=st.sampled_from(["black", "#102030"]),
    margin=st.sampled_from([0.0, 0.125, -0.125]),
)


def write(folder: Path, wanted: dict[str, Any]) -> Path:
    """A file of noise on a coarse grid, as JPEG where the mode allows."""
    width, height = wanted["size"]
    coarse = np.random.default_rng(wanted["seed"]).integers(0, 255, (height // 8 + 1, width // 8 + 1, 4), np.uint8)
    pixels = np.kron(coarse, np.ones((8, 8, 1), np.uint8))[:height, :width]
    mode = wanted["mode"]
    if mode == "I;16":
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    else:
        image = Image.fromarray(pixels if mode == "RGBA" else np.ascontiguousarray(pixels[..., :3])).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = wanted["orientation"]
    path = folder / ("x.jpg" if mode in ("RGB", "L", "CMYK") else "x.png")
    profile = wide_profile() if wanted["profile"] and mode in ("RGB", "RGBA", "P") else None
    image.save(path, exif=exif, icc_profile=profile)
    return path


class Spy(torch.nn.Module):
    """Keeps what a model is given."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = x
        return x.mean((2, 3))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wanted=files, framing=framings)
def test_all_see_the_same_pixels(tmp_path: Path, wanted: dict[str, Any], framing: Framing) -> None:
    path = write(tmp_path, wanted)
    width, height = wanted["size"]
    sample = Sample(path.name, "a", "train", "g", "", "h", width, height)
    manifest = Manifest(Samples.of([sample]), ("a",), tmp_path)
    pixels = torch.from_numpy(np.array(decode_framed(path, framing))).permute(2, 0, 1)[None]
    expected = normalise(pixels, IMAGENET)

    def batch(policy: Policy | None, draw: int) -> torch.Tensor:
        source = open_images_of(manifest, manifest.samples, framing, normalisation=IMAGENET, workers=0, policy=policy)
        [(images, _)] = source.batches([[0]], draw=draw)
        return images

    plain = batch(None, 0)  # precompute, valid
    policy = Policy(NO_CHANGE, framing)
    trained = batch(policy, 3)
    one_by_one = Images(manifest.samples, ("a",), tmp_path, framing)[0, 0][0][None]  # when memory does not hold them
    spy = Spy()
    computation = Computation(spy, torch.device("cpu"), "fp32", 1)
    predict_plain(computation, [ImageFile(path, "h")], policy, normalisation=IMAGENET)  # evaluation and prediction
    for seen in (plain, trained, normalise(one_by_one, IMAGENET), spy.seen):
        assert torch.equal(seen, expected)


@pytest.mark.parametrize(("px", "size"), [(None, (800, 600)), (224, (800, 600)), (100, (200, 150)), (8, (100, 75))])
def test_a_large_jpeg_is_decoded_no_smaller_than_asked(tmp_path: Path, px: int | None, size: tuple[int, int]) -> None:
    x, y = np.meshgrid(np.linspace(0, 255, 800), np.linspace(0, 255, 600))
    Image.fromarray(np.dstack([x, y, (x + y) / 2]).astype(np.uint8)).save(tmp_path / "x.jpg", quality=95)
    reduced = decode(tmp_path / "x.jpg", background="white", at_least_px=px).image
    whole = decode(tmp_path / "x.jpg", background="white").image
    if px != 224:
        assert reduced.size == size
    assert min(reduced.size) >= (px or 0)
    framing = Framing(min(px or 64, 64), "zoom", "white")
    difference = np.asarray(fit_image(reduced, framing)).astype(int) - np.asarray(fit_image(whole, framing))
    assert np.abs(difference).max() <= 4
