"""The one place that imports torchvision, also where its compiled extension does not load.

The registry's torchvision wheel is linked against CUDA. Beside the CPU build of torch its extension cannot be
loaded, and `import torchvision` dies with "operator torchvision::nms does not exist". Declaring the schemas of the
two operators that torchvision registers Python kernels for is enough for models, transforms and datasets. Where the
extension loads, nothing is touched. Only `torchvision.ops` boxes and `torchvision.io` stay missing; neither is used.
"""

import importlib.util
from pathlib import Path

import torch

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def _extension_loads() -> bool:
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            "torchvision is not installed: run `make test` or `pip install -c constraints.txt -e .`"
        )
    libraries = [p for pattern in ("_C*.so", "_C*.pyd", "_C*.dylib") for p in Path(spec.origin).parent.glob(pattern)]
    try:
        for library in libraries:
            torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]
    except OSError:
        return False
    return bool(libraries)


if not _extension_loads():
    for _operator in ("nms", "qnms"):
        torch.library.define(f"torchvision::{_operator}", _SCHEMA)

from torchvision import datasets, models  # noqa: E402
from torchvision.ops import StochasticDepth  # noqa: E402
from torchvision.transforms import InterpolationMode, v2  # noqa: E402

__all__ = ["InterpolationMode", "StochasticDepth", "datasets", "models", "v2"]
