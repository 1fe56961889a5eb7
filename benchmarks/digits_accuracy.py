"""Accuracy of the default run beside a support vector machine on the same splits, and with a tenth of the images.

`python -m benchmarks.digits_accuracy [--seeds 0 1 2 3 4] [overrides ...]` prints a line per seed and the means. The
reference is `sklearn.svm.SVC(gamma=0.001, C=10)` on the 64 pixels (0 to 16), trained on the same training images.
"""

import argparse
import os
import statistics
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.svm import SVC

from pipeline.data.manifest import Samples, read_manifest
from pipeline.files import read_json
from pipeline.harness.compose import compose
from pipeline.harness.dag import run_stages
from stages.registry import ALL


def main() -> None:
    """Run the pipeline once per seed and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--overrides", nargs="*", default=[])
    arguments = parser.parse_args()
    os.environ["UNFREEZE_TRACKING"] = "false"
    rows = []
    for seed in arguments.seeds:
        with tempfile.TemporaryDirectory() as folder:
            artifacts = run_stages(ALL, compose([*arguments.overrides, f"seed={seed}"]), Path(folder))
            scores = read_json(artifacts / "tta_evaluate" / "metrics.json")
            rates = [read_json(artifacts / s / "lr.json")["lr"] for s in ("lr_find_head", "lr_find_full")]
            reference = svm_accuracy(artifacts / "ingest")
        plain, tta = (scores["test"][how]["accuracy"] for how in ("plain", "tta"))
        rows.append((plain, tta, reference))
        print(
            f"seed {seed}: plain {plain:.4f}, TTA {tta:.4f}, SVM {reference:.4f}; "
            f"valid {scores['valid']['plain']['accuracy']:.4f}; rates {rates[0]:.3g}, {rates[1]:.3g}",
            flush=True,
        )
    for name, column in zip(("plain", "TTA", "SVM"), zip(*rows, strict=True), strict=True):
        print(f"{name:<6} mean {statistics.mean(column):.4f}, sd {statistics.pstdev(column):.4f}")


def svm_accuracy(ingest: Path) -> float:
    """Test accuracy of the support vector machine on the manifest's own split."""
    manifest = read_manifest(ingest)

    def pixels(samples: Samples) -> "np.ndarray[tuple[int, int], np.dtype[np.float64]]":
        return np.stack([np.asarray(Image.open(ingest / s.path)).ravel() * (16 / 255) for s in samples])

    train, test = manifest.of("train"), manifest.of("test")
    machine = SVC(gamma=0.001, C=10).fit(pixels(train), [s.label for s in train])
    return float(machine.score(pixels(test), [s.label for s in test]))


if __name__ == "__main__":
    main()
