"""Views of an image: what each mode shows, against brute force over pixels and against Pillow's own operations."""

import tempfile
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from pipeline.data.augment import Policy
from pipeline.data.decode import Framing, fit_image
from pipeline.evaluation.views import MIRROR, canvas, views_of, window_starts
from pipeline.harness.compose import compose
from pipeline.settings import Augment, SettingsError, TtaEvaluate, read_settings
from tests.conftest import PROJECT

SIZE = 32
SEED = ("seed",)


def augment(name: str) -> Augment:
    return Augment(**yaml.safe_load((PROJECT / "conf" / "augment" / f"{name}.yaml").read_text()))


def policy(name: str = "none", fit: str = "zoom", margin: float = 0.0) -> Policy:
    return Policy(augment(name), Framing(SIZE, fit, "black", margin))


def tta(mode: str, **changes: object) -> TtaEvaluate:
    values = yaml.safe_load((PROJECT / "conf" / "tta_evaluate" / f"{mode}.yaml").read_text())
    return TtaEvaluate(**{**values, **changes})


def make_views(image: Image.Image, how: TtaEvaluate, framed: Policy) -> list[Image.Image]:
    with tempfile.TemporaryDirectory() as folder:
        image.save(Path(folder) / "image.png")
        return views_of(Path(folder) / "image.png", how, framed, seed=SEED)


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def brightness(view: Image.Image) -> float:
    """A toy model that looks for a bright patch: the largest mean over 6 x 6 pixels, 0 to 1."""
    gray = np.asarray(view.convert("L"), dtype=np.float64) / 255
    return float(np.lib.stride_tricks.sliding_window_view(gray, (6, 6)).mean((2, 3)).max())


@given(window=st.integers(1, 64), extra=st.integers(0, 300), overlap=st.floats(0, 0.9))
def test_windows_cover_every_pixel_and_overlap_as_said(window: int, extra: int, overlap: float) -> None:
    length = window + extra
    starts = window_starts(length, window, overlap)
    covered = np.zeros(length, dtype=int)
    for start in starts:
        assert 0 <= start <= length - window
        covered[start : start + window] += 1
    assert covered.min() >= 1
    assert (starts[0], starts[-1]) == (0, length - window)
    for a, b in pairwise(starts):
        assert window - (b - a) >= min(overlap * window, window - 1) - 1e-6


@pytest.mark.parametrize("shape", [(96, 32), (32, 90), (61, 47), (50, 50)])
@pytest.mark.parametrize("margin", [0.0, 0.0625, -0.0625])
def test_sliding_windows_put_together_are_the_whole_image(shape: tuple[int, int], margin: float) -> None:
    image, framed = noise(*shape), policy(margin=margin)
    whole = np.asarray(canvas(image, framed.framing, 1.5))
    views = make_views(image, tta("sliding_window", zoom=1.5, overlap=0.3), framed)
    found = {tuple(corner) for view in views for corner in _places(whole, np.asarray(view))}
    covered = np.zeros(whole.shape[:2], dtype=bool)
    for y, x in found:
        covered[y : y + SIZE, x : x + SIZE] = True
    assert covered.all()


@pytest.mark.parametrize("fit", ["zoom", "pad", "squish"])
def test_a_canvas_holds_what_a_negative_margin_cuts_off(fit: str) -> None:
    framing = policy(fit=fit, margin=-0.125).framing
    whole = canvas(noise(50, 50), framing, 1.0)
    assert whole.size == (SIZE + SIZE // 4,) * 2
    cut = np.asarray(whole)[SIZE // 8 : -(SIZE // 8), SIZE // 8 : -(SIZE // 8)]
    assert np.array_equal(cut, np.asarray(fit_image(noise(50, 50), framing)))


def _places(whole: "NDArray[np.uint8]", view: "NDArray[np.uint8]") -> "NDArray[np.intp]":
    """Every place, by brute force, at which `view` is cut from `whole`."""
    height, width = view.shape[:2]
    return np.argwhere([
        [
            np.array_equal(whole[y : y + height, x : x + width], view)
            for x in range(whole.shape[1] - width + 1)
        ]
        for y in range(whole.shape[0] - height + 1)
    ])  # fmt: skip


@pytest.mark.parametrize("size", [(96, 32), (32, 96)])
def test_windows_and_corners_show_an_object_that_the_plain_image_cuts_off(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, "black")
    image.paste((255, 255, 255), (0, 0, 8, 8))
    assert brightness(fit_image(image, policy().framing)) < 0.05
    for mode in ("sliding_window", "multi_crop"):
        views = make_views(image, tta(mode, zoom=1.0), policy())
        assert max(brightness(view) for view in views) == 1.0, mode


def test_windows_reach_what_corners_do_not() -> None:
    image = Image.new("RGB", (160, 32), "black")
    image.paste((255, 255, 255), (44, 12, 52, 20))  # between the left corner and the centre
    seen = {m: max(map(brightness, make_views(image, tta(m, zoom=1.0), policy()))) for m in _CROPPING}
    assert seen["sliding_window"] == 1.0
    assert seen["multi_crop"] < 0.05


_CROPPING = ("sliding_window", "multi_crop")


@pytest.mark.parametrize("mode", _CROPPING)
def test_an_image_that_is_seen_whole_has_no_other_view(mode: str) -> None:
    assert make_views(noise(50, 50), tta(mode, zoom=1.0), policy()) == []


@pytest.mark.parametrize("fit", ["pad", "squish", "zoom"])
@pytest.mark.parametrize("mode", _CROPPING)
def test_crops_come_from_the_enlarged_image_as_it_is_framed(mode: str, fit: str) -> None:
    image, framed = noise(64, 48), policy(fit=fit)
    whole = np.asarray(canvas(image, framed.framing, 1.25))
    if fit == "zoom":
        assert whole.shape[:2] == (40, 53)
    else:
        assert np.array_equal(whole, np.asarray(fit_image(image, replace(framed.framing, image_size=40))))
    views = make_views(image, tta(mode, zoom=1.25), framed)
    assert all(len(_places(whole, np.asarray(view))) for view in views)


@pytest.mark.parametrize("size", [(100, 40), (40, 100), (48, 48)])
def test_the_canvas_of_zoom_1_holds_the_plain_image_in_its_middle(size: tuple[int, int]) -> None:
    ramp = np.linspace(0, 255, size[0] * size[1]).reshape(size[1], size[0])  # smooth, for the two resize differently
    image = Image.fromarray(np.repeat(ramp[..., None], 3, axis=2).astype(np.uint8))
    framing = Framing(SIZE, "zoom", "black", 0.0625)
    whole, plain = canvas(image, framing, 1.0), np.asarray(fit_image(image, framing), dtype=int)
    x, y = (whole.width - SIZE) // 2, (whole.height - SIZE) // 2
    middle = np.asarray(whole.crop((x, y, x + SIZE, y + SIZE)), dtype=int)[2:-2, 2:-2]
    if size[0] == size[1]:
        assert np.array_equal(middle, plain[2:-2, 2:-2])
    else:
        assert np.abs(middle - plain[2:-2, 2:-2]).max() <= 24  # half a pixel of the steepest ramp


def test_multi_crop_is_five_crops_and_ten_where_training_mirrors() -> None:
    image = noise(64, 48)
    plain = make_views(image, tta("multi_crop"), policy())
    both = make_views(image, tta("multi_crop"), policy("side_on"))
    assert len(plain) == 5
    assert len({v.tobytes() for v in plain}) == 5
    assert [v.tobytes() for v in both] == [v.tobytes() for v in (*plain, *(v.transpose(MIRROR) for v in plain))]


def test_multi_scale_is_the_image_framed_for_other_sizes() -> None:
    image = noise(64, 48)
    views = make_views(image, tta("multi_scale", scales=[0.5, 1.25]), policy())
    want = [fit_image(image, Framing(size, "zoom", "black")) for size in (16, 40)]
    assert [v.tobytes() for v in views] == [v.tobytes() for v in want]


def test_flip_is_the_mirror_or_all_eight_ways() -> None:
    image, plain = noise(64, 48), fit_image(noise(64, 48), policy().framing)
    assert [v.tobytes() for v in make_views(image, tta("flip"), policy("side_on"))] == [
        np.asarray(plain)[:, ::-1].tobytes()
    ]
    pixels = np.asarray(plain)
    want = {np.rot90(p, k).tobytes() for p in (pixels, pixels[:, ::-1]) for k in range(4)} - {pixels.tobytes()}
    views = make_views(image, tta("flip"), policy("top_down"))
    assert len(views) == 7
    assert {v.tobytes() for v in views} == want


def test_random_views_follow_from_the_seed_alone(tmp_path: Path) -> None:
    image, framed = noise(64, 48), policy("side_on")
    image.save(tmp_path / "image.png")
    drawn = [v.tobytes() for v in make_views(image, tta("augment", views=3), framed)]
    base = framed.decode_base(tmp_path / "image.png")
    assert drawn == [framed.view(base, seed=(*SEED, i)).tobytes() for i in range(3)]
    assert len(set(drawn)) == 3
    assert make_views(image, tta("augment"), policy("none")) == []


@pytest.mark.parametrize("mode", sorted(p.stem for p in (PROJECT / "conf" / "tta_evaluate").glob("*.yaml")))
def test_every_mode_composes(mode: str) -> None:
    flips = ["augment=side_on", "data.margin=0.0"]
    values = compose([f"tta_evaluate={mode}", *flips], conf=PROJECT / "conf")
    assert asdict(read_settings(values, source="x").tta_evaluate) == asdict(tta(mode))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["tta_evaluate.mode=flip"], r"tta_evaluate\.views=4 has no effect with tta_evaluate\.mode=flip: .*=flip"),
        (["tta_evaluate=flip", "tta_evaluate.scales=[0.5]"], "scales=.* has no effect"),
        (["tta_evaluate.views=null"], r"tta_evaluate\.views is missing"),
        (["tta_evaluate=flip"], "a mirror image shows something else"),
        (["tta_evaluate=sliding_window", "tta_evaluate.zoom=1.0", "data.fit=pad"], "cuts nothing off: set it above 1"),
        (["tta_evaluate=multi_scale", "tta_evaluate.scales=[1.0,2.0]"], "leave it out"),
        (["tta_evaluate=multi_scale", "tta_evaluate.scales=[]"], r"tta_evaluate\.scales"),
        (
            ["tta_evaluate=multi_scale", "model.arch=vit_b_16", "model.weights=none"],
            "vit_b_16, whose position embeddings needs one size",
        ),
        (["tta_evaluate=multi_crop", "tta_evaluate.zoom=0.5"], r"tta_evaluate\.zoom=0\.5"),
        (["tta_evaluate=flipp"], "flipp"),
    ],
)
def test_settings_that_do_not_fit_the_mode_are_refused(overrides: list[str], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        compose(overrides, conf=Path(PROJECT / "conf"))
