"""Batches depend on seed, draw and sample only, not on workers or order."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.data.augment import Policy, read_policy, write_policy
from pipeline.data.decode import Framing, decode, decode_framed, fit_image
from pipeline.data.images import ImageBatches, Images, normalise, open_images_of
from pipeline.data.loading import load
from pipeline.data.manifest import ChangedImageError, Manifest, Sample, Samples, check_unchanged
from pipeline.data.normalisation import Normalisation
from pipeline.files import file_digest
from pipeline.settings import Augment, read_settings
from tests.conftest import Compose, draw_picture, ingest_folder

FRAMING = Framing(32, "zoom", "white")
IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.fixture(scope="session")
def manifest(pictures: Path, compose_conf: Compose) -> Manifest:
    data = read_settings(compose_conf("data=folder", f"data.root={pictures}"), source="x").data
    result = ingest_folder(pictures, data)
    return Manifest(Samples.of(result.samples), tuple(result.classes), pictures)


def augment(compose_conf: Compose, name: str) -> Augment:
    return read_settings(compose_conf(f"augment={name}", "data.margin=0.0"), source="x").augment


def batches(manifest: Manifest, policy: Policy | None, order: list[list[int]], **arguments: int) -> torch.Tensor:
    source = open_images_of(
        manifest,
        manifest.of("train"),
        FRAMING,
        normalisation=IMAGENET,
        workers=arguments.get("workers", 0),
        policy=policy,
        seed=(arguments.get("seed", 0),),
    )
    return torch.cat([x for x, _ in source.batches(order, draw=arguments.get("draw", 0))])


ORDER = [[0, 1, 2, 3], [4, 5], [6, 7]]


@pytest.mark.parametrize("name", ["symbols", "side_on", "top_down"])
def test_views_do_not_depend_on_workers_or_order(manifest: Manifest, compose_conf: Compose, name: str) -> None:
    policy = Policy(augment(compose_conf, name), FRAMING)
    alone = batches(manifest, policy, ORDER)
    torch.manual_seed(99)
    assert torch.equal(alone, batches(manifest, policy, ORDER, workers=2))
    backwards = batches(manifest, policy, [[7, 6, 5, 4, 3, 2, 1, 0]])
    assert torch.equal(alone, backwards.flip(0))


def test_draws_and_seeds_differ_and_the_plain_image_does_not(manifest: Manifest, compose_conf: Compose) -> None:
    policy = Policy(augment(compose_conf, "symbols"), FRAMING)
    first = batches(manifest, policy, ORDER)
    assert not torch.equal(first, batches(manifest, policy, ORDER, draw=1))
    assert not torch.equal(first, batches(manifest, policy, ORDER, seed=1))
    assert torch.equal(batches(manifest, None, ORDER), batches(manifest, None, ORDER, draw=1))


def test_no_augmentation_is_the_plain_image(manifest: Manifest, compose_conf: Compose) -> None:
    policy = Policy(augment(compose_conf, "none"), FRAMING)
    assert policy.describe() == []
    assert torch.equal(batches(manifest, policy, ORDER), batches(manifest, None, ORDER))


def test_batches_are_the_decoders_pixels(manifest: Manifest) -> None:
    images = batches(manifest, None, [[0], [1]])
    for i in (0, 1):
        sample = manifest.of("train")[i]
        decoded = decode(manifest.root / sample.path, background="white").image
        fitted = np.asarray(fit_image(decoded, FRAMING))
        expected = normalise(torch.from_numpy(fitted.copy()).permute(2, 0, 1)[None], IMAGENET)
        assert torch.equal(images[i : i + 1], expected)


def test_a_model_of_other_classes_is_refused_by_name(manifest: Manifest) -> None:
    manifest.require_classes(manifest.classes)
    with pytest.raises(ValueError, match="3 classes and the model 3, which differ in plain, stripes"):
        manifest.require_classes(("bars", "dots", "stripes"))
    with pytest.raises(ValueError, match="have another order"):
        manifest.require_classes(manifest.classes[::-1])
    with pytest.raises(ValueError, match="images of class plain"):
        Images(manifest.samples, manifest.classes[:2], manifest.root, FRAMING)


def test_normalising_matches_the_formula() -> None:
    got = normalise(torch.full((1, 3, 1, 1), 128, dtype=torch.uint8), IMAGENET).flatten()
    expected = [(128 / 255 - m) / s for m, s in zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)]
    assert got.tolist() == pytest.approx(expected, rel=1e-6)


def test_dihedral_reaches_all_eight_and_horizontal_two(compose_conf: Compose) -> None:
    plain = {"rotate_deg": 0.0, "brightness": 0.0, "contrast": 0.0, "crop_min": 1.0}
    corner = Image.new("RGB", (32, 32))
    corner.putpixel((0, 3), (255, 255, 255))
    for flip, expected in (("dihedral", 8), ("horizontal", 2), ("none", 1)):
        policy = Policy(Augment(**{**vars(augment(compose_conf, "top_down")), **plain, "flip": flip}), FRAMING)
        assert len({policy.view(corner, seed=(i,)).tobytes() for i in range(80)}) == expected


@pytest.mark.parametrize(("border", "blue"), [("reflect", False), ("background", True)])
def test_the_border_is_the_background_or_a_reflection(compose_conf: Compose, border: str, blue: bool) -> None:
    wanted = Augment(**{**vars(augment(compose_conf, "none")), "shift": 0.4, "border": border})
    policy = Policy(wanted, Framing(32, "zoom", "#0000ff"))
    views = [np.asarray(policy.view(Image.new("RGB", (32, 32), "red"), seed=(i,))) for i in range(8)]
    assert any((v[..., 2] == 255).any() for v in views) == blue


def test_a_decoded_image_is_large_enough_for_the_smallest_crop(tmp_path: Path, compose_conf: Compose) -> None:
    policy = Policy(augment(compose_conf, "side_on"), FRAMING)
    draw_picture(0, 300, 400, np.random.default_rng(0)).save(tmp_path / "x.jpg")
    base = policy.decode_base(tmp_path / "x.jpg")
    assert 32 / 0.5**0.5 <= min(base.size) < 300
    assert policy.view(base, seed=(0,)).size == (32, 32)


@pytest.mark.parametrize("margin", [0.0, 0.0625])
def test_a_policy_that_changes_nothing_shows_the_plain_image(
    manifest: Manifest, compose_conf: Compose, margin: float
) -> None:
    framing = Framing(32, "zoom", "white", margin)
    path = manifest.root / manifest.of("train")[0].path
    policy = Policy(augment(compose_conf, "none"), framing)
    assert policy.view(policy.decode_base(path), seed=(0,)).tobytes() == decode_framed(path, framing).tobytes()
    turned = Policy(Augment(**{**vars(augment(compose_conf, "none")), "flip": "horizontal"}), framing)
    plain = np.asarray(decode_framed(path, framing))
    views = {turned.view(turned.decode_base(path), seed=(i,)).tobytes() for i in range(20)}
    assert views == {plain.tobytes(), np.ascontiguousarray(plain[:, ::-1]).tobytes()}


def test_a_policy_comes_back_from_its_file(tmp_path: Path, compose_conf: Compose) -> None:
    wanted = augment(compose_conf, "side_on")
    write_policy(tmp_path / "policy.yaml", wanted, FRAMING)
    read = read_policy(tmp_path / "policy.yaml", image_size=48)
    assert read.framing == Framing(48, "zoom", "white")
    assert read.describe() == Policy(wanted, Framing(48, "zoom", "white")).describe()


def test_a_policy_keeps_its_filter_and_older_files_mean_bilinear(tmp_path: Path, compose_conf: Compose) -> None:
    file, wanted = tmp_path / "policy.yaml", augment(compose_conf, "side_on")
    write_policy(file, replace(wanted, crop_min=0.5), replace(FRAMING, interpolation="bicubic"))
    read = read_policy(file, image_size=32)
    assert read.framing.interpolation == "bicubic"
    assert "InterpolationMode.BICUBIC" in read.describe()[0]
    file.write_text("".join(line for line in file.read_text().splitlines(True) if "  interpolation:" not in line))
    assert read_policy(file, image_size=32).framing == FRAMING


def test_images_kept_in_memory_equal_those_read_again(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = batches(manifest, None, ORDER)
    monkeypatch.setattr("pipeline.data.images.MEMORY_BYTES", 0)
    assert torch.equal(kept, batches(manifest, None, ORDER))
    assert isinstance(
        open_images_of(manifest, manifest.of("valid"), FRAMING, normalisation=IMAGENET, workers=0), ImageBatches
    )


def test_an_image_that_changed_since_ingest_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    Image.new("RGB", (8, 8), "red").save(file)
    digest = file_digest(file)
    check_unchanged(file, digest)
    samples = Samples.of([Sample("a.png", "a", "test", "g", digest, "s", 8, 8)])
    Images(samples, ["a"], tmp_path, FRAMING)[0, 0]
    Image.new("RGB", (8, 8), "blue").save(file)
    with pytest.raises(ChangedImageError, match=r"a\.png has changed since ingest read it"):
        Images(samples, ["a"], tmp_path, FRAMING)[0, 0]
    with pytest.raises(ChangedImageError, match=r"^\S+a\.png has changed since .* as they are now$"):
        list(load(Images(samples, ["a"], tmp_path, FRAMING), workers=1, collate=list, batches=[[(0, 0)]]))
    file.unlink()
    with pytest.raises(ChangedImageError, match=r"a\.png: it was there when ingest ran, and now: No such file"):
        check_unchanged(file, digest)
