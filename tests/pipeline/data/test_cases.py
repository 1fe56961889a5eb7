"""Every kind of bad file gets its verdict in the ledger, and causes no error after ingest."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipeline.data.decode import Framing
from pipeline.data.images import Images
from pipeline.data.ledger import LedgerLine
from pipeline.data.manifest import read_manifest, write_manifest
from pipeline.settings import Data, SettingsError, read_settings
from tests.conftest import Compose, Looked, ingest_folder
from tests.pipeline.data.cases import CASES, Case, saved


@pytest.fixture(scope="module")
def data(compose_conf: Compose) -> Data:
    return replace(read_settings(compose_conf("data=folder", "data.root=x"), source="x").data, max_rejected=1.0)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cases") / "images"
    (root / "a").mkdir(parents=True)
    (root / "b").mkdir()
    (root / "empty").mkdir()
    for case in CASES:
        case.make(root / "a" / case.name)
    for seed in range(50, 56):
        (root / "b" / f"{seed}.png").write_bytes(saved(seed=seed))
    (root / "b" / "like-an-image.png").mkdir()
    (root / "b" / "like-an-image.png" / "inside.png").write_bytes(saved(seed=60))
    (root / "linked").symlink_to(root)
    (root / "README.md").write_text("about these images")
    return root


@pytest.fixture(scope="module")
def ingested(root: Path, data: Data) -> Looked:
    return ingest_folder(root, data)


@pytest.fixture(scope="module")
def lines(ingested: Looked) -> dict[str, LedgerLine]:
    return {line.path: line for line in ingested.ledger}


@pytest.mark.parametrize("case", CASES, ids=lambda case: ascii(case.name[:30]))
def test_each_file_gets_its_verdict(lines: dict[str, LedgerLine], case: Case) -> None:
    line = lines[f"a/{case.name}"]
    assert (line.verdict, case.reason in line.reason) == (case.verdict, True), line


def test_every_file_has_one_line(ingested: Looked, lines: dict[str, LedgerLine]) -> None:
    assert len(lines) == len(ingested.ledger)
    assert lines["README.md"].verdict == lines["empty"].verdict == "ignored"
    assert lines["linked"].reason.startswith("a link that leads back")
    assert lines["b/like-an-image.png/inside.png"].verdict == "accepted"
    used = {line.path for line in ingested.ledger if line.verdict in ("accepted", "converted", "flagged")}
    assert used == {s.path for s in ingested.samples}


def test_all_that_is_accepted_becomes_pixels(ingested: Looked, root: Path, tmp_path: Path) -> None:
    write_manifest(tmp_path, ingested.samples, ingested.classes, root=str(root))
    manifest = read_manifest(tmp_path)
    for fit in ("zoom", "pad", "squish"):
        images = Images(manifest.samples, manifest.classes, root, Framing(16, fit, "white"))
        pixels = torch.stack([images[i, 0][0] for i in range(len(images))])
        assert pixels.shape == (len(ingested.samples), 3, 16, 16)


def test_too_many_rejected_stops_and_lists_the_worst(root: Path, data: Data) -> None:
    with pytest.raises(SettingsError) as error:
        ingest_folder(root, replace(data, max_rejected=0.05))
    text = str(error.value)
    assert "data.max_rejected=0.05 allows" in text
    assert "'a/121-megapixels.png': 121 million pixels" in text
    allowed = float(text.rpartition("data.max_rejected=")[2])
    assert ingest_folder(root, replace(data, max_rejected=allowed)).samples


def test_one_bad_file_stops_where_none_is_allowed(tmp_path: Path, data: Data) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for seed in range(5):
            (tmp_path / name / f"{seed}.png").write_bytes(saved(seed=seed + 10 * (name == "b")))
    strict = replace(data, on_reject="fail", max_rejected=0.0)
    assert len(ingest_folder(tmp_path, strict).samples) == 10
    (tmp_path / "a" / "x.png").write_text("x")
    with pytest.raises(SettingsError, match=r"on_reject=fail allows none:\n    'a/x\.png': not an image but text"):
        ingest_folder(tmp_path, strict)
