"""The precision that is chosen: by instructions, by measurement, and the same answer from then on."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pipeline.model import precision
from pipeline.model.compute import Computation, forward
from pipeline.model.head import Head
from pipeline.model.precision import FASTER, Precision, affordable, choose_precision, measure_share

CPU = torch.device("cpu")

Choose = Callable[..., tuple[Precision, list[str]]]


@pytest.fixture
def choose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Choose:
    def chosen(wanted: str, *, native: bool, share: float) -> tuple[Precision, list[str]]:
        said: list[str] = []
        monkeypatch.setattr(precision, "is_native", lambda _: native)
        monkeypatch.setattr(precision, "measure_share", lambda *_, **__: share)
        found = choose_precision(
            wanted, nn.Identity(), CPU, image_size=32, kept=tmp_path, identity={"arch": "x"}, say=said.append
        )
        return found, said

    return chosen


@pytest.mark.parametrize(("share", "expected"), [(FASTER - 0.01, "bf16"), (FASTER + 0.01, "fp32")])
def test_auto_takes_bf16_only_where_it_is_clearly_faster(share: float, expected: str, choose: Choose) -> None:
    found, [said] = choose("auto", native=True, share=share)
    assert found == expected
    assert said == f"computing in {expected}: a training step in bf16 takes {share:.2f} of the time of one in fp32 here"


def test_a_choice_stands_whatever_is_measured_later(choose: Choose) -> None:
    assert choose("auto", native=True, share=0.3)[0] == "bf16"
    assert choose("auto", native=True, share=9.0)[0] == "bf16"


@pytest.mark.parametrize(
    ("wanted", "expected", "reason"),
    [("auto", "fp32", "computing in fp32"), ("bf16", "bf16", "model.precision=bf16 was asked for")],
)
def test_without_instructions_bf16_is_only_for_those_who_ask(
    wanted: str, expected: str, reason: str, choose: Choose
) -> None:
    found, [said] = choose(wanted, native=False, share=0.1)
    assert (found, said.partition(": ")[2]) == (expected, reason)


@pytest.mark.parametrize(("native", "expected"), [(True, "bf16"), (False, "fp32")])
def test_a_model_made_in_bf16_predicts_in_it_where_there_are_instructions(
    native: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "is_native", lambda _: native)
    assert (affordable("bf16", CPU), affordable("fp32", CPU)) == (expected, "fp32")


def test_measuring_leaves_the_network_and_the_random_numbers_as_they_were() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten())
    network[2].eval()
    before, modes = {n: t.clone() for n, t in network.state_dict().items()}, [m.training for m in network.modules()]
    rng = torch.get_rng_state()
    assert measure_share(network, CPU, image_size=32) > 0
    assert all(torch.equal(before[n], t) for n, t in network.state_dict().items())
    assert [m.training for m in network.modules()] == modes
    assert all(p.grad is None for p in network.parameters())
    assert torch.equal(torch.get_rng_state(), rng)


def test_a_head_computes_in_single_precision_behind_a_backbone_in_bf16() -> None:
    torch.manual_seed(0)
    backbone, head = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten()), Head(8 * 36, 5, dropout=0.0)

    class Whole(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = head(backbone(images).float())
            return logits

    computation, images = Computation(Whole(), CPU, "bf16", 4), torch.randn(4, 3, 8, 8)
    with torch.no_grad():
        features = forward(computation, images, backbone)
        assert torch.equal(forward(computation, images), head(features))
        assert not torch.equal(features, backbone(images))
