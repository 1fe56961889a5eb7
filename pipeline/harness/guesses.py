"""What to type instead of the names and spellings that other tools have taught."""

import difflib
import re
from collections.abc import Sequence
from pathlib import Path

from pipeline.harness.quoting import typed
from pipeline.settings import nearest_keys, shown

_TABLES = (".csv", ".tsv", ".jsonl", ".parquet")
_LONGEST_NAME = 80
_TRAINING = ("full_train", "head_train_augmented", "head_train")
"""The stages that train, the one that matters most first."""

_EPOCHS = (
    "`full_train.num_cycles=1 full_train.cycle_len={value}` for {value} epochs in one cycle, or give full_train more "
    "cycles: num_cycles of them, the first of cycle_len epochs, each next cycle_mult times longer"
)
_RATE = "`full_train.lr={value}`, or nothing: auto takes the rate that lr_find_full finds"
_SIZE = "`data.image_size={value}` (pixels)"
_BATCH = "`data.batch_size={value}`"
_ROOT = "`experiment=photos data.root={value}`, or `data=folder data.root={value}` for the images alone"
_VALID = "`data.split.valid={value}`, the share of images to choose on; data.split.test is the share of the final score"
_DEVICE = "`runtime.device=cuda:0` (or auto, cpu, mps), or UNFREEZE_DEVICE=cuda:0 in the environment"
_STOP = "`full_train.until_overfit=true`: training stops after the first cycle that ends with a higher loss on valid"
_FROZEN = "`head_train.num_cycles={value}`: the backbone stays frozen until the stage unfreeze"
_NAME = "`runtime.experiment={value}` (MLflow's experiment), or `dvc exp run --name {value}` (DVC's)"
_MIXED = "nothing: images are not mixed here; `augment=side_on` (flips, crops, light) is what suits photos"
_RESUME = "nothing: the same command again continues where a stopped run was"

GUESSES = {
    **dict.fromkeys(("epochs", "epoch", "max_epochs", "num_epochs", "num_train_epochs", "n_epoch"), _EPOCHS),
    **dict.fromkeys(("lr", "lr0", "learning_rate", "base_lr", "lr_max", "max_lr"), _RATE),
    **dict.fromkeys(("imgsz", "img_size", "input_size", "size", "resize", "item_tfms", "batch_tfms"), _SIZE),
    **dict.fromkeys(("batch", "bs", "train_batch_size", "per_device_train_batch_size"), _BATCH),
    **dict.fromkeys(("path", "data_dir", "data_path", "train_dir", "source"), _ROOT),
    **dict.fromkeys(("valid_pct", "split", "val_split", "valid_size", "val_size"), _VALID),
    **dict.fromkeys(("device", "gpu", "gpus", "accelerator", "devices"), _DEVICE),
    **dict.fromkeys(("patience", "early_stopping", "early_stop"), _STOP),
    **dict.fromkeys(("freeze_epochs", "freeze"), _FROZEN),
    **dict.fromkeys(("project", "run_name", "exp_name", "experiment_name"), _NAME),
    **dict.fromkeys(("mixup", "cutmix", "mosaic"), _MIXED),
    **dict.fromkeys(("resume", "ckpt_path"), _RESUME),
    **dict.fromkeys(("backbone", "architecture", "net", "network"), "`model=imagenet model.arch={value}`"),
    **dict.fromkeys(("wd", "weight_decay"), "`full_train.weight_decay={value}`"),
    **dict.fromkeys(("mom", "momentum"), "`full_train.momentum={value}`"),
    **dict.fromkeys(("amp", "half", "fp16", "bf16", "mixed_precision"), "`model.precision=bf16`"),
    **dict.fromkeys(("optimizer", "opt", "opt_func"), "`full_train.optimizer=adamw` (or sgd, auto)"),
    **dict.fromkeys(("num_workers", "n_workers"), "`runtime.workers={value}`"),
    **dict.fromkeys(("degrees", "max_rotate"), "`augment.rotate_deg={value}`"),
    **dict.fromkeys(("fliplr", "do_flip", "hflip"), "`augment.flip=horizontal`"),
    **dict.fromkeys(("ps", "drop_p", "drop_rate"), "`model.dropout={value}`"),
    **dict.fromkeys(("cos_lr", "scheduler", "lr_scheduler"), "`full_train.schedule=sgdr` (cosine with restarts), "
                    "constant, step, exponential or one_cycle"),
    "pretrained": "`model=imagenet` (torchvision's weights), or `model.weights=none`",
    "tta": "`tta_evaluate=sliding_window` (or augment, multi_crop, multi_scale, flip)",
    "name": _NAME,
}  # fmt: skip
"""By the last part of a key that does not exist here: what to type instead. `{value}` is what was typed behind it."""


def instead_of_key(key: str, value: str) -> str:
    """Say what to type instead of `key=value`, where there is no setting `key`."""
    name = re.split(r"[./@]", key.lower())[-1][:_LONGEST_NAME]
    nearest = sorted(nearest_keys(key), key=_trains_first)
    is_near = difflib.get_close_matches(name, [k.rpartition(".")[2] for k in nearest], n=1, cutoff=0.6)
    if name in GUESSES:
        return "type " + GUESSES[name].format(value=shown(_plain(value)))
    if (guess := difflib.get_close_matches(name, GUESSES, n=1, cutoff=0.8)) and not is_near:
        return f"if {guess[0]} is meant, type " + GUESSES[guess[0]].format(value=shown(_plain(value)))
    return f"nearest: {', '.join(nearest)}"


def instead_of_choice(group: str, name: str, choices: Sequence[str]) -> str:
    """Say what to type instead of `group=name`, where the group has only `choices`."""
    near = difflib.get_close_matches(name[:_LONGEST_NAME], choices, n=1, cutoff=0.75)
    if group == "data" and (_is_path(name) or not near):
        kind = "csv" if name.lower().endswith(_TABLES) else "folder"
        return f"for images of your own type `data={kind} {typed({'data.root': name})}`"
    if near:
        return f"did you mean {group}={near[0]}?"
    if group == "model" and name.endswith(".safetensors"):
        return f"for weights of your own type `{typed({'model.weights': name})}`, and their model.arch"
    if group == "model":
        return f"for an architecture type `model=imagenet {typed({'model.arch': name})}`"
    return f"there is no {group}={shown(name)}"


def _is_path(name: str) -> bool:
    return "/" in name or "." in name or "~" in name or (len(name) < 256 and "\0" not in name and Path(name).exists())


def _trains_first(key: str) -> int:
    section = key.partition(".")[0]
    return _TRAINING.index(section) if section in _TRAINING else len(_TRAINING)


def _plain(value: str) -> str:
    """The number in a value such as `Resize(224)`, or the value itself."""
    number = re.fullmatch(r"\w+\((\d+)\D.*|\w+\((\d+)\)", value)
    return next(filter(None, number.groups())) if number else value
