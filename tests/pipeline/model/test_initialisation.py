"""Networks that are built to be filled from a file."""

import pytest
import torch

from pipeline.model.backbone import build_backbone


@pytest.mark.parametrize("arch", ["squeezenet1_1", "regnet_y_400mf", "swin_t", "timm/test_vit", "timm/test_convnext"])
def test_a_network_that_is_filled_is_the_same_and_nothing_is_drawn(arch: str) -> None:
    """Swin draws until all weights are within bounds, regnet computes its widths; both must still end and be right."""
    size = 224 if arch == "swin_t" else 160 if arch.startswith("timm") else 64
    trained = build_backbone(arch, image_size=size).eval()
    before = torch.get_rng_state()
    filled = build_backbone(arch, image_size=size, to_load=True).eval()
    assert torch.equal(torch.get_rng_state(), before)
    filled.load_state_dict(trained.state_dict())
    image = torch.rand(1, 3, size, size)
    with torch.inference_mode():
        assert torch.equal(filled(image), trained(image))
