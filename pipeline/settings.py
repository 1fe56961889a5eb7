"""The schema of all settings: their types, units and ranges. Their values live in `conf/`, never here.

A default in code would escape DVC's hashing, so no field has one. `read_settings` turns a nested dict into checked
dataclasses; every error names the key, the value, and the nearest valid one. This module is left out of the
fingerprints of code, so it holds the schema and its checks, and computes nothing.
"""

import dataclasses
import difflib
import json
import os
import re
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from pipeline.passwords import hide_passwords

Share = Annotated[float, Field(ge=0, lt=1)]
Pixels = Annotated[int, Field(ge=8, le=2048)]
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
Batch = Annotated[int, Field(ge=1, le=1_000_000)]
Seconds = Annotated[float, Field(ge=0, le=1e7)]
Text = Annotated[
    str, Field(min_length=1, max_length=4096, pattern=r"^[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]*$")
]
"""Text that holds something, in one line: a name or a path."""
Name = Annotated[Text, Field(max_length=250)]
Rate = Annotated[float, Field(ge=1e-10, le=1e4)]
BatchSize = Batch | Literal["full"]
TtaMode = Literal["augment", "multi_crop", "sliding_window", "multi_scale", "flip"]

_FIXED_SIZE = {
    **dict.fromkeys(("vit", "timm/vit", "timm/deit", "timm/deit3", "timm/beit", "timm/eva02"), "position embeddings"),
    **dict.fromkeys(("maxvit", "timm/maxvit", "timm/coatnet", "timm/swin", "timm/swinv2"), "window partitioning"),
}
"""Architectures that take images of one size only, by the beginning of their names, and why."""

_TTA_NEEDS: dict[str, set[str]] = {
    "augment": {"views"},
    "multi_crop": {"zoom"},
    "sliding_window": {"zoom", "overlap"},
    "multi_scale": {"scales"},
    "flip": set(),
}
_OF_CYCLES = ("num_cycles", "cycle_len", "cycle_mult", "lr", "schedule")
"""The settings of `head_train` that only SGD has."""

Schedule = Literal["sgdr", "constant", "step", "exponential", "one_cycle"]
OptimizerName = Literal["sgd", "adamw"]
OptimizerChoice = Literal["sgd", "adamw", "auto"]
Snapshots = Literal["none", "best", "cautious", "average", "ensemble"]
HeadSnapshots = Literal["none", "best", "cautious", "average"]  # the next stage starts from one head


_LONGEST_SHOWN = 80
"""Characters of a value that a message shows."""
_MOST_COMPLAINTS = 5
"""Settings that one message names."""
_DEEPEST = 20
"""Sections or lists within each other."""
_MOST_EPOCHS = 100_000
_LARGEST_BATCH = 16 * 2**30
"""Bytes of the images that are computed at once. What the network makes of them takes many times as much."""

T = typing.TypeVar("T")


class SettingsError(ValueError):
    """A setting that is missing, unknown, of the wrong type or out of range."""


class _Section:
    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True)
class Split(_Section):
    """How images that have no split yet are split; the rest is for training."""

    valid: Share
    """Share of each class for choosing (learning rate, cycle)."""
    test: Share
    """Share of each class that is used once, at the end."""


@dataclass(frozen=True)
class Unpack(_Section):
    """What may come out of an archive. It is counted while it is unpacked, whatever the archive says of itself."""

    max_gb: Annotated[float, Field(gt=0, le=1e6)]
    """Size of all its files in GB (10^9 bytes)."""
    max_files: Count
    """Number of its files and folders."""
    max_ratio: Annotated[float, Field(ge=1, le=1e6)]
    """Unpacked over packed size: photos have about 1, drawings in BMP up to 100, archives that are made to fill a disk
    1,000 and more. Below 100 MB it is not looked at."""


@dataclass(frozen=True)
class DataSource(_Section):
    """The part of `data` that says which images there are, and how they are split."""

    name: Name
    """A name in `pipeline.data.sources.SOURCES`. `digits`: the 1,797 handwritten digits of scikit-learn; `folder`: one
    folder per class below `root`, or a zip or tar archive of it; `csv`: a table of paths and labels; `shards`: tar
    files with an index; `torchvision`: one of its datasets. `check_source` there checks the name, and the settings that
    not every source has."""
    root: Text | None
    """The folder of images or of shards, the archive, the table, or where datasets are kept, relative to the project;
    null for `digits`."""
    dataset: Name | None
    """torchvision's name of its dataset; null for all others."""
    group: Name | None
    """The column, of the table or of the shards' index, whose equal values stay in one split (a patient, a scene); null
    for none."""
    drop: Text | None
    """A table with a column `path` of images to leave out, such as an edited copy of `cross_validate`'s `suspects.csv`,
    relative to the project; null for none. They do not count as rejected."""
    on_reject: Literal["skip", "fail"]
    """What happens to a file that cannot be used: `skip` continues without it, `fail` stops."""
    max_rejected: Annotated[float, Field(ge=0, le=1)]
    """Share of the files that may be skipped before ingest stops."""
    unpack: Unpack
    on_split_group: Literal["fail", "move", "keep"]
    """What happens if the source puts a group (`group`) into several splits: `fail` stops; `move` moves the whole group
    to test if any of it is there, or else to valid; `keep` leaves it, and says so."""
    duplicates: Literal["keep", "drop", "fail"]
    """Copies of an image, pixel by pixel: `keep` uses them, in the same split, and says so; `drop` leaves them out;
    `fail` stops."""
    near_copies: Literal["group", "flag", "drop", "fail", "off"]
    """Images that are alike: `group` keeps them in the same split where its share allows; `flag` only says so; `drop`
    leaves out one of two in different splits that the source gives; `fail` stops if some are in different splits or
    classes; `off` does not look for them."""
    near_copy_similarity: Annotated[float, Field(ge=0.1, le=1)]
    """How alike near copies are in the part where they differ most, from 0 to 1; see `pipeline.data.likeness`."""
    split: Split
    train_fraction: Annotated[float, Field(ge=1e-4, le=1)]
    """Share of the training images that is used, equal for all classes: below 1 shows what more data is worth."""


@dataclass(frozen=True)
class FramingSettings(_Section):
    """The part of `data` that says how an image of any shape becomes a square."""

    image_size: Pixels
    """Height and width that the network sees, in pixels."""
    fit: Literal["zoom", "pad", "squish"]
    """`zoom`: scale the short side and crop; `pad`: scale the long side and fill; `squish`: scale both."""
    margin: Annotated[float, Field(ge=-0.25, le=0.25)]
    """Share of `image_size` that is left free at each side, for subjects that touch the edge of their image. A negative
    share is cut off at each side: -0.0714 scales to 256 and crops 224, as torchvision's weights expect (they were
    trained on random crops, which show things larger than whole images do: Touvron et al. 2019, arXiv:1906.06423)."""
    background: Name
    """Colour behind transparent pixels, around padded images and in the margin, by CSS name or #rrggbb."""


@dataclass(frozen=True)
class BatchSettings(_Section):
    """The part of `data` that says how training images are put together."""

    balance: Literal["none", "weights", "sampler"]
    """How training treats classes of unequal size: not at all, weighted in the loss by inverse frequency, or sampled
    equally often by repeating images of the smaller classes."""
    batch_size: BatchSize
    """Images per optimizer step: 1 is stochastic, `full` is batch gradient descent, the rest mini-batch."""
    micro_batch_size: Batch
    """Images computed at once. The gradients of a larger batch are accumulated over parts of this size."""


@dataclass(frozen=True)
class ImageBatchSettings(BatchSettings):
    """What training on images reads of `data`."""

    image_size: Pixels
    """See `FramingSettings.image_size`."""


@dataclass(frozen=True)
class Data(DataSource, FramingSettings, BatchSettings):
    """Which images, and how they become tensors. Each stage reads the parts that it needs."""


@dataclass(frozen=True)
class Model(_Section):
    """The backbone and its weights."""

    arch: Annotated[str, Field(max_length=250, pattern=r"^[A-Za-z0-9_./-]+$")]
    """Any torchvision classifier, by its function's name, or any of timm: `timm/resnet18.a1_in1k`."""
    weights: Text
    """`glyphs` (shipped), `imagenet` (torchvision's download), `pretrained` (that of the architecture's own library,
    torchvision or timm), `none`, or a .safetensors file."""
    head_init: Literal["auto", "random"]
    """How the head is initialised. `auto`: from the classification layer of the weights, where they hold one
    (torchvision's and most of timm's do, `glyphs` does not); otherwise, and with `random`, at random."""
    dropout: Share
    """Dropout probability in the head."""
    precision: Literal["auto", "fp32", "bf16"]
    """`bf16` computes the backbone's convolutions and matrix products in bfloat16, with slightly different numbers.
    `auto` measures whether that is clearly faster here, and keeps to what it found; `artifacts/precompute/model.json`
    says what was chosen. On a processor without such instructions bf16 is many times slower, and only where it is asked
    for."""


@dataclass(frozen=True)
class Augment(_Section):
    """Random changes to training images, drawn anew for each image and epoch."""

    flip: Literal["none", "horizontal", "dihedral"]
    """`dihedral`: all eight flips and quarter turns, for pictures taken from above."""
    rotate_deg: Annotated[float, Field(ge=0, le=180)]
    """Rotate by up to this angle either way, in degrees."""
    shift: Annotated[float, Field(ge=0, le=0.5)]
    """Shift by up to this share of the size either way."""
    zoom: Annotated[float, Field(ge=1, le=4)]
    """Scale by a factor between 1/zoom and zoom; 1 is off."""
    shear_deg: Annotated[float, Field(ge=0, le=45)]
    """Shear by up to this angle either way, in degrees."""
    border: Literal["reflect", "background"]
    """What fills the border when an image is shifted or rotated: its own reflection, or `data.background`."""
    crop_min: Annotated[float, Field(ge=0.05, le=1)]
    """Smallest share of the area that a random crop keeps; 1 is off."""
    brightness: Annotated[float, Field(ge=0, le=1)]
    contrast: Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class Precompute(_Section):
    """Activations of the frozen backbone, on which the head is trained first."""

    views: Annotated[int, Field(ge=0, le=1000)]
    """Augmented views of each training image whose activations are stored beside those of the plain image; 0: none."""


@dataclass(frozen=True)
class CrossValidate(_Section):
    """Cross-validation of heads on activations, and the labels that look wrong."""

    num_folds: Annotated[int, Field(ge=2, le=20)]
    """Parts that train and valid together are cut into; each is predicted by a head that was fitted to the others."""


@dataclass(frozen=True)
class LrFind(_Section):
    """The learning-rate sweep: Smith 2015 (arXiv:1506.01186), section 3.3, with exponential steps."""

    start_lr: Rate
    end_lr: Rate
    num_steps: Annotated[int, Field(ge=20, le=10_000)]
    """Optimizer steps from start_lr to end_lr. In lr_find_full all sweeps cost at most half an epoch."""
    repeats: Annotated[int, Field(ge=1, le=100)]
    """Sweeps over different batch orders; the rule reads the mean of their curves."""
    smoothing: Annotated[float, Field(ge=0.05, le=2)]
    """Width of the Gaussian that smooths the loss over the rate, in decades."""
    rule: Literal["recipe", "valley", "steep", "minimum", "slide"]
    """`recipe`: the highest rate at which the loss still clearly improves."""
    on_unusable: Literal["fallback", "fail"]
    """What happens if no rate can be read, though the sweep was widened: `fallback` takes a rate that is known to be
    safe, and says so; `fail` stops the run."""


@dataclass(frozen=True)
class Training(_Section):
    """A training stage: `num_cycles` cycles, the first of `cycle_len` epochs, each next `cycle_mult` times longer."""

    num_cycles: Annotated[int, Field(ge=1, le=1000)]
    cycle_len: Annotated[int, Field(ge=1, le=10_000)]
    """Epochs of the first cycle."""
    cycle_mult: Annotated[int, Field(ge=1, le=100)]
    lr: Rate | Literal["auto"]
    """Peak rate of the last layer group; `auto` takes the finder's."""
    schedule: Schedule
    """`sgdr` (cosine with restarts), `constant`, `step`, `exponential` (a tenth per cycle) or `one_cycle`."""
    momentum: Share
    """Weight of earlier gradients in their running mean: SGD's momentum, AdamW's first beta (its second is 0.999)."""
    weight_decay: Share
    """Not applied to biases and the scales of norms. AdamW multiplies it by the rate; SGD adds it to the gradient."""
    batch_size: BatchSize | None
    """null: `data.batch_size`."""


@dataclass(frozen=True)
class HeadTraining(_Section):
    """Training the head on activations. `conf/head_train/` holds a whole section for each solver."""

    solver: Literal["lbfgs", "sgd"]
    """`lbfgs`: to the minimum of the loss, for several weight decays; dropout has no effect. `sgd`: in cycles, as in
    the other stages. Settings of cycles, which `lbfgs` does not have, are null there; see `Training`."""
    num_cycles: Annotated[int, Field(ge=1, le=1000)] | None
    cycle_len: Annotated[int, Field(ge=1, le=10_000)] | None
    cycle_mult: Annotated[int, Field(ge=1, le=100)] | None
    lr: Rate | Literal["auto"] | None
    schedule: Schedule | None
    momentum: Share
    """Of `sgd`, and of the finder's sweep."""
    weight_decay: Annotated[float, Field(ge=0, le=1000)] | Literal["auto"]
    """`lbfgs`: `auto` follows a path from strong to weak decay, until the loss on valid stops falling; it pulls towards
    the head that training starts from, if that predicts better than chance, and towards zero otherwise."""
    batch_size: BatchSize | None
    """Of `sgd`, and of the finder's sweep. null: `data.batch_size`."""
    image_size: Pixels | None
    """null: `data.image_size`."""
    snapshots: HeadSnapshots
    """What the head is made of; see `FullTrain.snapshots`."""


@dataclass(frozen=True)
class ImageTraining(Training):
    """Training on images."""

    image_size: Pixels | Annotated[tuple[Pixels, ...], Field(min_length=1)] | None
    """One size, or a size for each cycle (small first, to save time); null: `data.image_size`."""


@dataclass(frozen=True)
class HeadTrainAugmented(ImageTraining):
    """Training the head on images, through the frozen backbone."""

    snapshots: HeadSnapshots
    """What the head is made of; see `FullTrain.snapshots`."""


@dataclass(frozen=True)
class Unfreeze(_Section):
    """How the whole model is unfrozen."""

    num_groups: Annotated[int, Field(ge=2, le=100)]
    """Layer groups, including the head."""
    lr_ratio: Annotated[float, Field(ge=1, le=1000)] | None
    """Rate of each group over the rate of the group before it; the recipe says 3 to 10. null: `lrs` says it."""
    lrs: tuple[Rate, ...] | None
    """Peak rate of each group in `full_train`, earliest first, instead of `lr_ratio` and the finder's rate."""
    schedule: Literal["all", "gradual"]
    """`all` trains all groups from the first cycle on; `gradual` unfreezes one more per cycle, from the head down."""
    batch_norm: Literal["frozen", "train"]
    """`frozen` keeps the pretrained statistics and affine weights; `train` adapts both."""


@dataclass(frozen=True)
class FullTrain(ImageTraining):
    """Training all layers."""

    optimizer: OptimizerChoice
    """`sgd` (with momentum), `adamw`, or `auto`: what suits the architecture (`pipeline.learning.optimizers`)."""
    until_overfit: bool
    """Stop after the first cycle that ends with a higher validation loss; `snapshots` says what is kept."""
    snapshots: Snapshots
    """What the model is made of. `none`: the last cycle's weights, over-fitted or not, and no snapshots are published;
    `best`: the weights of the cycle that ended best on valid; `cautious`: the same, if it is better than the state
    before by more than choosing among the cycles gives by chance, else the mean of its weights and those before, where
    that is better on valid, else those before; `average`: the mean of the weights of several cycle ends, and
    `ensemble`: the mean of their predictions, both only where that is better on valid than the best alone."""


@dataclass(frozen=True)
class TtaEvaluate(_Section):
    """Test-time augmentation: the prediction for an image, averaged with those for views of it.

    Settings that the mode does not use are null; `conf/tta_evaluate/` holds a whole section for each mode.
    """

    mode: TtaMode
    """`augment`: random views as in training; `multi_crop`: the corners and the centre; `sliding_window`: windows over
    the whole image; `multi_scale`: the image at other sizes; `flip`: its mirror images."""
    views: Annotated[int, Field(ge=0, le=1000)] | None
    """`augment`: random views per image; 0 is off."""
    zoom: Annotated[float, Field(ge=1, le=4)] | None
    """`multi_crop` and `sliding_window`: the image's size over what fits into the network's view."""
    overlap: Annotated[float, Field(ge=0, le=0.9)] | None
    """`sliding_window`: smallest share of a window that the next one overlaps."""
    scales: Annotated[list[Annotated[float, Field(ge=0.25, le=4)]], Field(min_length=1)] | None
    """`multi_scale`: sizes beside the plain one, as multiples of it."""
    weights: Literal["uniform", "chosen"]
    """`uniform`: the plain image weighs as much as each view; `chosen`: the weight with valid's lowest log loss."""


@dataclass(frozen=True)
class Publish(_Section):
    """What becomes of the finished model in MLflow, beside its row."""

    register: Name | None
    """Name in MLflow's registry under which the model gets a version; null: it is not registered."""
    promote: Literal["always", "better", "never"]
    """Whether the alias `champion` moves to that version. `better`: if it classifies the same test images better than
    the champion does, by an exact paired test; the first version of a name becomes champion without a test."""


@dataclass(frozen=True)
class Runtime(_Section):
    """How a run is executed. Nothing here may change the result, except `threads`, `processes` and `device`, which are
    recorded.

    Each is also an environment variable: `UNFREEZE_DEVICE=cuda`, `UNFREEZE_THREADS=4`, ...
    """

    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|(cuda|xpu)(:\d{1,3})?)$")]
    """`auto` (CUDA where present), `cpu`, `cuda`, `cuda:1`, `mps`, `xpu`. Results differ between devices."""
    threads: Annotated[int, Field(ge=0, le=1024)]
    """Threads that compute, 0 for one per core; several processes divide them. Sums differ in the last bit between
    thread counts."""
    processes: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"]
    """Processes that compute a model together: on each its share of every batch. `auto`: one for each GPU, or one."""
    workers: Annotated[int, Field(ge=0, le=256)]
    """Extra processes that read and augment images; 0: the training process does it."""
    checkpoint_s: Seconds
    """A checkpoint is written this often, in seconds: a kill costs no more training than that."""
    live_s: Seconds
    """A stage that runs longer than this, in seconds, is shown live in MLflow."""
    tracking: bool
    """Whether runs are logged to MLflow."""
    tracking_uri: Text | None
    """MLflow's server; null: MLFLOW_TRACKING_URI in the environment, or else the local mlflow.db. A URI with a password
    is given in the environment only: settings are stored, and may be committed."""
    tracking_s: Annotated[float, Field(ge=1, le=3600)]
    """How long publishing waits for MLflow's server, in seconds, whatever the server does. What is not sent by then is
    kept, and the next run sends it. Raise it where a model is uploaded over a slow line."""
    experiment: Name
    """Name of the MLflow experiment: the table that the row goes into."""


@dataclass(frozen=True)
class Settings(_Section):
    """Everything that can be set, a section per stage plus `data`, `model`, `augment` and `runtime`."""

    seed: Annotated[int, Field(ge=0, lt=2**31)]
    data: Data
    model: Model
    augment: Augment
    precompute: Precompute
    cross_validate: CrossValidate
    lr_find_head: LrFind
    head_train: HeadTraining
    head_train_augmented: HeadTrainAugmented
    unfreeze: Unfreeze
    lr_find_full: LrFind
    full_train: FullTrain
    tta_evaluate: TtaEvaluate
    publish: Publish
    runtime: Runtime


_adapters: dict[type, TypeAdapter[Any]] = {}
"""Made when they are first needed: most programs need that of the settings only."""


def _adapter(cls: type[T]) -> TypeAdapter[T]:
    if cls not in _adapters:
        _adapters[cls] = TypeAdapter(cls)
    return _adapters[cls]


def read_settings(values: dict[str, Any], *, source: str) -> Settings:
    """Check the nested dict `values` and return it as settings. Raises SettingsError, which names `source`."""
    try:
        _check_plain(values)
        _check_passwords(values)
        settings = _read(Settings, values)
        _check_together(settings)
    except SettingsError as error:
        raise SettingsError(f"{source}: {error}") from None
    return settings


def all_keys(cls: type = Settings, prefix: str = "") -> Iterator[str]:
    """Every dotted key of the schema, sections included."""
    hints = typing.get_type_hints(cls)
    for f in dataclasses.fields(cls):
        yield prefix + f.name
        if dataclasses.is_dataclass(hints[f.name]):
            yield from all_keys(typing.cast(type, hints[f.name]), f"{prefix}{f.name}.")


def nearest_keys(key: str) -> list[str]:
    """The valid dotted keys that are most like `key`: several where only their last part was given."""
    section, _, name = key[:_LONGEST_SHOWN].lower().rpartition(".")
    closeness = {k: _closeness(section, name, k) for k in all_keys()}
    best = max(closeness.values())
    return [k for k, close in closeness.items() if close == best]


def nearest_key(key: str) -> str:
    """The first of `nearest_keys`."""
    return nearest_keys(key)[0]


def _closeness(section: str, name: str, key: str) -> float:
    of_key, _, last = key.rpartition(".")
    by_name = difflib.SequenceMatcher(None, name, last).ratio()
    by_section = difflib.SequenceMatcher(None, section, of_key).ratio() if section else 0.0
    return by_name + by_section


def shown(value: object) -> str:
    """A value as messages show it: in one line, cut where it is long, without what a terminal would obey."""
    try:
        text = "null" if value is None else value if isinstance(value, str) and value.isprintable() else repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits, or lists in lists
        return f"a {type(value).__name__} that is too long to be shown"
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}... ({len(text)} characters)"


def with_environment(runtime: Runtime) -> Runtime:
    """`runtime` with the `UNFREEZE_*` environment variables applied on top; an empty one counts as not set.

    Raises SettingsError, which names the variable, for one that is unknown or has a value that it cannot have.
    """
    prefix, known = "UNFREEZE_", [f.name for f in dataclasses.fields(Runtime)]
    given = {n.removeprefix(prefix).lower(): v for n, v in os.environ.items() if n.startswith(prefix) and v}
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
            raise SettingsError(
                f"environment: {prefix}{shown(name.upper())} is unknown; nearest: {prefix}{near.upper()}"
            )
    if not given:
        return runtime
    texts = {n: v for n, v in given.items() if n in ("device", "tracking_uri", "experiment")}
    others = {n: _from_text(v) for n, v in given.items() if n not in texts}
    try:
        return _read(Runtime, dataclasses.asdict(runtime) | others | texts)
    except SettingsError as error:
        raise SettingsError(f"environment, {prefix}*: {error}") from None


def _from_text(text: str) -> object:
    """A number, true or false in the environment; all else stays text, and is refused by the schema."""
    from omegaconf import OmegaConf  # here, because most runs need none of it, and each stage would import it
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        return OmegaConf.from_dotlist([f"value={text}"])["value"] if len(text) <= _LONGEST_SHOWN else text
    except (YAMLError, OmegaConfBaseException):
        return text


def _read(cls: type[T], values: dict[str, Any]) -> T:
    _check_plain(values)
    try:
        return _adapter(cls).validate_json(json.dumps(values))  # strict, yet from dicts: only JSON can be both
    except ValidationError as error:
        by_key: dict[str, list[str]] = {}
        for key, typed, reason in (_complaint(dict(e), values) for e in error.errors()):
            # What may be a number or a word has an error for each: one sentence names both.
            said = by_key.setdefault(key, [f"{key}{typed}{reason}"])
            other = reason.removeprefix("input should be ").removeprefix(" must be ")
            said += [other] if other not in said[0] else []
        complaints = [" or ".join(said) for said in by_key.values()]
        more = f"; and {len(complaints) - _MOST_COMPLAINTS} more" if len(complaints) > _MOST_COMPLAINTS else ""
        raise SettingsError("; ".join(complaints[:_MOST_COMPLAINTS]) + more) from None


def _check_passwords(value: object, key: str = "") -> None:
    """Refuse a password among the settings, which are stored in several places. In the environment it may be."""
    if isinstance(value, dict):
        for name, item in value.items():
            _check_passwords(item, f"{key}.{name}".lstrip("."))
    elif isinstance(value, str) and hide_passwords(value) != value:
        raise SettingsError(
            f"{key}={shown(hide_passwords(value))} holds a password, which would be stored with the settings: put "
            "MLflow's address into UNFREEZE_TRACKING_URI or MLFLOW_TRACKING_URI in the environment"
        )


def _check_plain(value: object, key: str = "", depth: int = 0) -> None:
    """Raise SettingsError for what no file of settings holds: other types than JSON's, or too deep in each other."""
    if depth > _DEEPEST:
        raise SettingsError(f"{key}: sections or lists lie in each other more than {_DEEPEST} deep")
    if isinstance(value, dict):
        for name, item in value.items():
            if not isinstance(name, str) or not name.isprintable():
                raise SettingsError(f"{shown(name)} is no name of a setting{f' in {key}' if key else ''}")
            _check_plain(item, f"{key}.{shown(name)}".lstrip("."), depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            _check_plain(item, key, depth + 1)
    elif isinstance(value, str):
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            raise SettingsError(f"{key}={shown(value)}: this is not UTF-8; a name that is not must be changed")
    elif isinstance(value, int) and abs(value) >= 2**63:
        raise SettingsError(f"{key}={shown(value)}: this number is far too large")
    elif value is not None and not isinstance(value, bool | int | float):
        raise SettingsError(f"{key}={shown(value)}: a {type(value).__name__} is no setting; text is put in quotes")


def _complaint(error: dict[str, Any], values: dict[str, Any]) -> tuple[str, str, str]:
    """A key, how it was given, and what is wrong; an error's location may end in the names of a union's branches."""
    path: list[str] = []
    at: Any = values
    for part in error["loc"]:
        if not isinstance(at, dict) or (part not in at and error["type"] != "missing"):
            break
        path.append(str(part))
        at = at.get(part)
    key = ".".join(path)
    given = f"={shown(at)}" if key.rpartition(".")[2] != "tracking_uri" else ""  # it may hold a password
    match error["type"]:
        case "unexpected_keyword_argument" | "extra_forbidden":
            return shown(key), "", f" is not a setting; nearest: {', '.join(nearest_keys(key))}"
        case "missing" | "missing_argument":
            return ".".join(str(p) for p in error["loc"]), "", " is missing; give it a value in conf/"
        case "literal_error":
            names = error["ctx"]["expected"].replace("'", "").replace(",", "").split()
            near = difflib.get_close_matches(str(at), names, n=1) if isinstance(at, str) else []
            return key, given, f" must be {error['ctx']['expected']}" + (f"; did you mean {near[0]}?" if near else "")
        case "dataclass_type":
            return key, "", f" must be a section, not {shown(at)}"
        case "string_pattern_mismatch" | "string_type" if key.rpartition(".")[2] == "device":
            number = str(at) if re.fullmatch(r"\d{1,3}", str(at)) else "0"
            return key, given, f" must be auto, cpu, cuda, cuda:{number} or mps"
        case "string_pattern_mismatch" if key.rpartition(".")[2] == "arch":
            return key, given, " is no name of an architecture, such as resnet18 or timm/resnet18.a1_in1k"
        case "string_type" if isinstance(at, int | float):
            return key, f"{given}: ", f"a number is no text; put it in quotes, '{key}=\"{shown(at)}\"'"
        case "string_too_short" | "string_pattern_mismatch":
            return key, f"{given}: ", "this must be text in one line, and not empty; null stands for nothing"
    if isinstance(at, str) and given:
        given = f"={shown(repr(at))}"
    return key, f"{given}: ", f"{error['msg'][0].lower()}{error['msg'][1:]}"


def _check_together(s: Settings) -> None:
    """Check combinations in which one setting would have no effect or no meaning."""
    _check_rejection(s.data)
    _check_memory(s)
    if s.data.split.valid + s.data.split.test >= 1:
        raise SettingsError("data.split.valid and data.split.test leave nothing to train on: their sum must be below 1")
    if s.data.margin > 0 and s.augment.crop_min < 1:
        raise SettingsError(
            f"data.margin={s.data.margin:g} has no effect on random crops: set augment.crop_min=1 or data.margin=0"
        )
    for name, find in (("lr_find_head", s.lr_find_head), ("lr_find_full", s.lr_find_full)):
        if find.start_lr >= find.end_lr:
            raise SettingsError(f"{name}.start_lr={find.start_lr:g} must be below {name}.end_lr={find.end_lr:g}")
    _check_weights(s.model)
    _check_schedules(s)
    _check_rates(s)
    batch = s.full_train.batch_size if s.full_train.batch_size is not None else s.data.batch_size
    if s.unfreeze.batch_norm == "train" and (batch == 1 or batch == "full"):
        raise SettingsError(
            f"full_train.batch_size={batch} needs unfreeze.batch_norm=frozen: statistics of one image, or of parts "
            "of a batch, are not those of the batch"
        )
    _check_tta(s)
    _check_publish(s.publish)


def _check_memory(s: Settings) -> None:
    """Refuse what no machine computes at once, before anything runs."""
    sizes = {"data": s.data.image_size, "head_train": s.head_train.image_size}
    trainings = {"head_train_augmented": s.head_train_augmented, "full_train": s.full_train}
    sizes |= {
        name: max(train.image_size) if isinstance(train.image_size, tuple) else train.image_size
        for name, train in trainings.items()
    }
    name, size = max(((name, size) for name, size in sizes.items() if size is not None), key=lambda item: item[1])
    count = s.data.micro_batch_size
    if count * size**2 * 3 * 4 > _LARGEST_BATCH:
        raise SettingsError(
            f"data.micro_batch_size={count} images of {name}.image_size={size} take "
            f"{count * size**2 * 12 / 2**30:.0f} GiB of memory, and what the network makes of them many times as much: "
            f"set data.micro_batch_size={max(1, _LARGEST_BATCH // (size**2 * 12) // 16)} or less, for the same result"
        )


def _check_publish(publish: Publish) -> None:
    if publish.register is None and publish.promote != "better":
        raise SettingsError(
            f"publish.promote={publish.promote} has no effect without publish.register: set that to a model's name"
        )
    if publish.register is not None and (
        not publish.register.strip() or not publish.register.strip(".") or set(publish.register) & set("/:@%'\"")
    ):
        raise SettingsError(f"publish.register={publish.register!r} must be a name without / : @ % and quotes: photos")


def _check_weights(model: Model) -> None:
    if model.arch.startswith("timm/") and model.weights in ("glyphs", "imagenet"):
        raise SettingsError(
            f"model.weights={model.weights} does not fit model.arch={model.arch}: set model.weights=pretrained for "
            "timm's own, none, or a .safetensors file"
        )


def _check_tta(s: Settings) -> None:
    tta, mode = s.tta_evaluate, s.tta_evaluate.mode
    for name in ("views", "zoom", "overlap", "scales"):
        value, needed = getattr(tta, name), name in _TTA_NEEDS[mode]
        if needed and value is None:
            raise SettingsError(f"tta_evaluate.{name} is missing: tta_evaluate.mode={mode} needs it")
        if not needed and value is not None:
            raise SettingsError(
                f"tta_evaluate.{name}={value} has no effect with tta_evaluate.mode={mode}: set it to null, or choose "
                f"the mode with all its settings by tta_evaluate={mode}"
            )
    if mode == "flip" and s.augment.flip == "none":
        raise SettingsError(
            "tta_evaluate.mode=flip needs augment.flip=horizontal or dihedral: augment.flip=none means that a mirror "
            "image shows something else"
        )
    if tta.zoom == 1 and s.data.fit != "zoom":
        raise SettingsError(
            f"tta_evaluate.zoom=1 has no effect with data.fit={s.data.fit}, which cuts nothing off: set it above 1"
        )
    if tta.scales is not None and 1.0 in tta.scales:
        raise SettingsError(
            f"tta_evaluate.scales={tta.scales}: 1 is the plain image, which is always used; leave it out"
        )
    if mode == "multi_scale" and (why := _FIXED_SIZE.get(s.model.arch.partition("_")[0])):
        raise SettingsError(
            f"tta_evaluate.mode=multi_scale does not fit model.arch={s.model.arch}, whose {why} needs one size: choose "
            "another mode, or an architecture with adaptive pooling (resnet18, mobilenet_v2, ...)"
        )


def _check_rates(s: Settings) -> None:
    unfreeze = s.unfreeze
    if unfreeze.lrs is None:
        if unfreeze.lr_ratio is None:
            raise SettingsError(
                "unfreeze.lr_ratio and unfreeze.lrs are both null, so layer groups have no rates: set "
                "unfreeze.lr_ratio=3, or unfreeze.lrs to one rate for each group"
            )
        return
    given = f"unfreeze.lrs={list(unfreeze.lrs)}"
    if unfreeze.lr_ratio is not None:
        raise SettingsError(
            f"{given} contradicts unfreeze.lr_ratio={unfreeze.lr_ratio:g}: set unfreeze.lr_ratio=null, or "
            "unfreeze.lrs=null"
        )
    if len(unfreeze.lrs) != unfreeze.num_groups:
        raise SettingsError(
            f"{given} has {len(unfreeze.lrs)} rates for unfreeze.num_groups={unfreeze.num_groups}: give one for each "
            "layer group, earliest first"
        )
    if s.full_train.lr != "auto":
        raise SettingsError(
            f"{given} contradicts full_train.lr={s.full_train.lr:g}: the last of unfreeze.lrs is the head's rate; set "
            "full_train.lr=auto, or unfreeze.lrs=null and unfreeze.lr_ratio=3"
        )


def _check_rejection(data: Data) -> None:
    if data.on_reject == "fail" and data.max_rejected:
        raise SettingsError(
            f"data.max_rejected={data.max_rejected:g} has no effect with data.on_reject=fail: set it to 0, or skip"
        )


def _check_head_train(train: HeadTraining) -> None:
    sgd = train.solver == "sgd"
    for name in _OF_CYCLES:
        value = getattr(train, name)
        if sgd and value is None:
            raise SettingsError(
                f"head_train.{name} is missing: head_train.solver=sgd needs it; head_train=sgd chooses the solver with "
                "all its settings"
            )
        if not sgd and value is not None:
            raise SettingsError(
                f"head_train.{name}={value} has no effect with head_train.solver=lbfgs: set it to null, or choose the "
                "other solver with all its settings by head_train=sgd"
            )
    if sgd and train.weight_decay == "auto":
        raise SettingsError("head_train.weight_decay=auto needs head_train.solver=lbfgs: give sgd a number, such as 0")
    if not sgd and train.weight_decay == "auto" and train.snapshots == "none":
        raise SettingsError(
            "head_train.snapshots=none would keep the weakest decay of head_train.weight_decay=auto, which is known to "
            "over-fit: set head_train.snapshots=best or average, or head_train.weight_decay to a number"
        )


def _check_epochs(name: str, train: Training | HeadTraining) -> None:
    """Refuse what nobody waits for: with `cycle_mult`, a few more cycles are many more epochs."""
    if train.num_cycles is None or train.cycle_len is None or train.cycle_mult is None:
        return
    epochs, length = 0, train.cycle_len
    for _ in range(train.num_cycles):
        epochs, length = epochs + length, length * train.cycle_mult
        if epochs > _MOST_EPOCHS:
            raise SettingsError(
                f"{name}.num_cycles={train.num_cycles}, {name}.cycle_len={train.cycle_len} and "
                f"{name}.cycle_mult={train.cycle_mult} make more than {_MOST_EPOCHS:,} epochs: lower one of them"
            )


def _check_schedules(s: Settings) -> None:
    _check_head_train(s.head_train)
    trainings: dict[str, Training | HeadTraining] = {
        "head_train": s.head_train,
        "head_train_augmented": s.head_train_augmented,
        "full_train": s.full_train,
    }
    for name, train in trainings.items():
        _check_epochs(name, train)
        if train.schedule not in ("sgdr", None) and train.cycle_mult != 1:
            raise SettingsError(
                f"{name}.cycle_mult={train.cycle_mult} has no effect with {name}.schedule={train.schedule}: only sgdr "
                f"restarts in growing cycles; set {name}.cycle_mult=1"
            )
        if train.schedule == "one_cycle" and train.num_cycles != 1:
            raise SettingsError(
                f"{name}.num_cycles={train.num_cycles} contradicts {name}.schedule=one_cycle: set {name}.num_cycles=1 "
                f"and the number of epochs in {name}.cycle_len"
            )
        sizes = train.image_size if isinstance(train, ImageTraining) else None
        if isinstance(sizes, tuple) and len(sizes) != train.num_cycles:
            raise SettingsError(
                f"{name}.image_size={list(sizes)} has {len(sizes)} sizes for {name}.num_cycles={train.num_cycles} "
                "cycles: give one for each"
            )
    needed = s.unfreeze.num_groups - 1
    if s.unfreeze.schedule == "gradual" and s.full_train.num_cycles < needed:
        raise SettingsError(
            f"unfreeze.schedule=gradual opens {s.unfreeze.num_groups} groups within {needed} cycles, but "
            f"full_train.num_cycles={s.full_train.num_cycles}: set it to {needed} or more, or unfreeze.schedule=all"
        )
