"""Renderings are pure functions of (seed, index) and have the resolution that the settings ask for."""

import dataclasses

import torch

from pretraining.glyphs import Atlas
from pretraining.render import RenderSettings, render


def test_an_image_depends_on_seed_and_index_only(atlas: Atlas, drawing: RenderSettings) -> None:
    images, labels = render(atlas, drawing, seed=3, indices=torch.arange(40))
    order = torch.tensor([17, 3, 39])
    some, some_labels = render(atlas, drawing, seed=3, indices=order)
    assert torch.equal(some, images[order])
    assert torch.equal(some_labels, labels[order])
    alone = [render(atlas, drawing, seed=3, indices=torch.tensor([i]))[0] for i in range(5)]
    assert torch.equal(torch.cat(alone), images[:5])
    assert not torch.equal(render(atlas, drawing, seed=4, indices=torch.arange(40))[0], images)


def test_images_have_the_documented_shape_type_and_contrast(atlas: Atlas, drawing: RenderSettings) -> None:
    images, labels = render(atlas, drawing, seed=0, indices=torch.arange(400))
    assert images.shape == (400, 3, drawing.image_size, drawing.image_size)
    assert images.dtype == torch.uint8
    assert int(labels.min()) >= 0
    assert int(labels.max()) < atlas.num_classes
    assert len(set(labels.tolist())) > atlas.num_classes // 2
    contrast = images.flatten(1).float().std(1)
    assert (contrast > 2).float().mean() > 0.97, "blank images"
    grounds = images[:, :, 0, 0].float().mean(1)
    assert (grounds < 100).any()
    assert (grounds > 155).any()


def test_low_resolution_loses_detail(atlas: Atlas, drawing: RenderSettings) -> None:
    plain = dataclasses.replace(drawing, noisy_share=0.0, colour_share=0.0, full_contrast_share=1.0)
    sharp = dataclasses.replace(plain, sharp_share=1.0)
    coarse = dataclasses.replace(plain, sharp_share=0.0, image_size=drawing.image_size, min_resolution_px=6)
    edges = [
        render(atlas, settings, seed=0, indices=torch.arange(100))[0].float().diff(dim=3).abs().mean()
        for settings in (sharp, coarse)
    ]
    assert edges[1] < edges[0]
