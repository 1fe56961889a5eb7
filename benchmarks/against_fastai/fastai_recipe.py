"""The recipe as fastai 2.8 can express it. Runs in fastai's environment and knows nothing of this project.

`python fastai_recipe.py '{"data": ..., "arch": ..., ...}'` takes the fields of `work.Work` and `frozen_bn`, and prints
a JSON object: seconds by our names of the stages, accuracies, versions, threads. fastai has no precomputed
activations and no solver for the head: each epoch goes through the whole network.
"""

import importlib.util
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch


def let_torchvision_load() -> None:
    """Declare what torchvision expects of its extension, where that does not load: beside the CPU build of torch."""
    spec = importlib.util.find_spec("torchvision")
    assert spec is not None
    assert spec.origin is not None
    try:
        for library in Path(spec.origin).parent.glob("_C*.so"):
            torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]
    except OSError:
        for operator in ("nms", "qnms"):
            schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            torch.library.define(f"torchvision::{operator}", schema)


let_torchvision_load()

import fastai  # noqa: E402
import torchvision  # noqa: E402
from fastai.callback.hook import num_features_model  # noqa: E402
from fastai.vision.all import (  # noqa: E402
    SGD,
    ChannelsLast,
    CrossEntropyLossFlat,
    ImageDataLoaders,
    Learner,
    Normalize,
    ProgressCallback,
    Resize,
    ResizeMethod,
    accuracy,
    aug_transforms,
    get_image_files,
    imagenet_stats,
    set_seed,
)
from fastai.vision.learner import add_head, create_body, model_meta  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

LR_RATIO = 3.0
"""Between neighbouring layer groups, as in our `unfreeze.lr_ratio`."""


def main() -> None:
    """Run the recipe and print what it took."""
    work, seconds = json.loads(sys.argv[1]), {}

    @contextmanager
    def timed(stage: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        seconds[stage] = time.monotonic() - began

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    set_seed(0)
    plain, augmented = open_data(work, []), open_data(work, transforms(work))
    learner = build_learner(work, plain)
    with timed("lr_find_head"):
        lr = learner.lr_find(num_it=work["finder_steps"], show_plot=False).valley
    with timed("head_train"):
        learner.fit(work["head_epochs"], lr)
    learner.dls = augmented
    with timed("head_train_augmented"):
        for _ in range(work["augmented_cycles"]):
            learner.fit_sgdr(1, 1, lr)  # fit_sgdr(3, 1, cycle_mult=1) divides by zero
    learner.unfreeze()
    with timed("lr_find_full"):
        lr = learner.lr_find(num_it=work["finder_steps"], show_plot=False).valley
    groups = len(learner.opt.param_lists)
    lrs = [lr / LR_RATIO ** (groups - 1 - group) for group in range(groups)]
    with timed("full_train"):
        learner.fit_sgdr(work["full_cycles"], 1, lrs, cycle_mult=2)
    with timed("tta_evaluate"):
        scores = evaluate(learner, work)
    versions = {"fastai": fastai.__version__, "torch": torch.__version__, "torchvision": torchvision.__version__}
    images = {"train": len(plain.train_ds), "valid": len(plain.valid_ds), **scores.pop("images")}
    facts = {"seconds": seconds, "images": images, "versions": versions, "threads": torch.get_num_threads()}
    print(json.dumps({**facts, **scores}))


def transforms(work: dict[str, Any]) -> list[Any]:
    """What the fastai of the course did to photos from the side: rotation, zoom, light, and no warp."""
    return list(aug_transforms(do_flip=work["flip"], max_rotate=10.0, max_zoom=1.1, max_lighting=0.1, max_warp=0.0))


def open_data(work: dict[str, Any], batch_transforms: list[Any]) -> Any:
    """Open train and valid; on two cores, no worker processes is the fastest setting."""
    return ImageDataLoaders.from_folder(
        work["data"],
        train="train",
        valid="valid",
        item_tfms=Resize(work["image_size"], method=ResizeMethod.Crop),
        batch_tfms=[*batch_transforms, Normalize.from_stats(*imagenet_stats)],
        bs=work["batch_size"],
        num_workers=0,
        device=torch.device("cpu"),
    )


def build_learner(work: dict[str, Any], data: Any) -> Any:
    """Give a learner with the head to train: SGD, channels last. Raises ValueError if the weights do not fit."""
    arch = getattr(torchvision.models, work["arch"])
    network, weights = arch(weights=None), load_file(work["weights"])
    own = network.state_dict()
    fitting = {name: value for name, value in weights.items() if name in own and own[name].shape == value.shape}
    lacking = [name for name in own if name not in fitting and not name.startswith(("fc.", "classifier."))]
    if lacking:
        raise ValueError(f"{work['weights']} lacks {len(lacking)} tensors of {work['arch']}, first {lacking[0]}")
    network.load_state_dict(fitting, strict=False)
    body = create_body(network, cut=model_meta[arch]["cut"])
    learner = Learner(
        data,
        add_head(body, num_features_model(body), len(data.vocab)),
        loss_func=CrossEntropyLossFlat(),
        opt_func=partial(SGD, mom=0.9),
        splitter=model_meta[arch]["split"],
        metrics=accuracy,
        path=Path(tempfile.mkdtemp()),
        cbs=[ChannelsLast()],
        train_bn=not work["frozen_bn"],
    )
    learner.remove_cbs([callback for callback in learner.cbs if isinstance(callback, ProgressCallback)])
    learner.logger = lambda row: print(*row, file=sys.stderr, flush=True)
    learner.create_opt()
    learner.freeze()
    return learner


def evaluate(learner: Any, work: dict[str, Any]) -> dict[str, Any]:
    """Accuracy on test, of the plain images and with TTA."""
    files = get_image_files(Path(work["data"]) / "test")
    loader = learner.dls.test_dl(files, with_labels=True)
    found: dict[str, Any] = {"images": {"test": len(files)}}
    for name, predict in (
        ("accuracy", learner.get_preds),
        ("accuracy_tta", partial(learner.tta, n=work["tta_views"])),
    ):
        probs, targets = predict(dl=loader)
        found[name] = (probs.argmax(1) == targets.squeeze()).float().mean().item()
    return found


if __name__ == "__main__":
    main()
