"""Finds weights files. A module of its own, because it loads without torch."""

from pathlib import Path

from pipeline.paths import from_checkout

GLYPHS_DIR = Path(__file__).resolve().parents[2] / "pretraining" / "weights"
"""Has `<arch>.safetensors` for each architecture that `pretraining/` was run for."""


def find_weights_file(arch: str, weights: str) -> Path:
    """The file that `model.weights` names: `glyphs`, or a path. Raises FileNotFoundError or ValueError."""
    if weights == "glyphs":
        path = GLYPHS_DIR / f"{arch}.safetensors"
        if not path.exists():
            shipped = sorted(p.stem for p in GLYPHS_DIR.glob("*.safetensors"))
            raise FileNotFoundError(
                f"model.weights=glyphs is not shipped for model.arch={arch}, only for {', '.join(shipped)}: use one "
                "of these, set model.weights=pretrained, or train it with `dvc repro` in pretraining/"
            )
        return path
    path = from_checkout(weights)
    if not path.is_file():
        raise FileNotFoundError(
            f"model.weights={weights}: no such file ({path.resolve()}); give a .safetensors file, "
            "or one of glyphs, imagenet, pretrained, none"
        )
    if path.suffix != ".safetensors":
        raise ValueError(f"model.weights={weights}: only .safetensors files are loaded, because others can run code")
    return path
