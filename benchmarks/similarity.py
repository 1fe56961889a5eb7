"""Does the similarity verdict distinguish data like the pretraining data from other data?

`python -m benchmarks.similarity [--seeds 0 1 2] [--photos FOLDER]` runs the whole recipe with the shipped backbone on
letters drawn as its pretraining data was, on the digits, on tiles of two photos, and on a folder of one's own. For
each run it prints the verdict, how the loss on valid changed in the first unfrozen cycle, and how far each layer group
moved.
"""

import argparse
import os
import tempfile
from pathlib import Path

from benchmarks.image_folders import write_letters, write_photo_tiles
from pipeline.files import read_json
from pipeline.harness.compose import compose
from pipeline.harness.dag import run_stages
from stages.registry import ALL


def main() -> None:
    """Run the recipe on each data set, and print a line per run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--photos", type=Path)
    arguments = parser.parse_args()
    os.environ["UNFREEZE_TRACKING"] = "false"
    with tempfile.TemporaryDirectory() as made:
        root = Path(made)
        write_letters(root / "letters")
        write_photo_tiles(root / "tiles")
        small = ["data=folder", "data.image_size=32", "data.margin=0"]
        sources = {
            "letters": [*small, f"data.root={root / 'letters'}"],
            "digits": ["data=digits"],
            "tiles": [*small, f"data.root={root / 'tiles'}", "augment=side_on"],
        }
        if arguments.photos:
            sources["photos"] = [*small, f"data.root={arguments.photos.resolve()}", "augment=side_on"]
        for name, overrides in sources.items():
            for seed in arguments.seeds:
                artifacts = run_stages(ALL, compose([*overrides, f"seed={seed}"]), root / f"{name}-{seed}")
                print(f"{name:<8} seed {seed}: {describe(artifacts / 'full_train' / 'verdict.json')}", flush=True)


def describe(verdict: Path) -> str:
    """One line for the verdict in a file."""
    found = read_json(verdict)["similarity"]
    low, high = found["interval"]
    noise = found["noise"]
    moved = ", ".join(f"{g['name']} {g['weights']:.2%} (CKA {g['features_cka']:.3f})" for g in found["groups"])
    return (
        f"{found['outcome']}; loss {found['before']:.4f} to {found['after']:.4f}, {found['change']:+.4f} "
        f"({low:+.4f} to {high:+.4f}), noise {noise[0]:+.4f} to {noise[1]:+.4f}; {moved}"
    )


if __name__ == "__main__":
    main()
