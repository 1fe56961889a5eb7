"""What a person types: read as meant, or answered with what to type instead."""

import re
import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from pipeline.harness.compose import compose
from pipeline.harness.typed import check_quoted, chosen, names_base, read_typed
from pipeline.settings import SettingsError
from tests.conftest import PROJECT
from tests.pipeline.harness.test_quoting import PATHS

CONF = PROJECT / "conf"

GUESSES = {
    # Hydra, and templates that use it
    "+trainer.max_epochs=10": "`full_train.num_cycles=1 full_train.cycle_len=10`",
    "model=resnet50": "`model=imagenet model.arch=resnet50`",
    "hydra/sweeper=optuna": "`hydra/sweeper=search`",
    "augment=null": "did you mean augment=none?",
    # DVC's examples
    "train.lr=0.001": "`full_train.lr=0.001`",
    "prepare.split=0.2": "`data.split.valid=0.2`",
    "data.path=photos": "`experiment=photos data.root=photos`",
    # ultralytics
    "epochs=10": "`full_train.num_cycles=1 full_train.cycle_len=10`",
    "data=/pets/photos": "`data=folder data.root=/pets/photos`",
    "imgsz=224": "`data.image_size=224`",
    "batch=16": "`data.batch_size=16`",
    "device=0": "`runtime.device=cuda:0`",
    # fastai
    "bs=64": "`data.batch_size=64`",
    "item_tfms=Resize(224)": "`data.image_size=224`",
    "valid_pct=0.2": "`data.split.valid=0.2`",
}
"""What users of other tools type first, and what they are told to type instead."""


def test_the_table_in_the_documentation_is_this_one() -> None:
    rows = dict(
        re.findall(r"^\| ``?([^`|]+)``? \| (.+) \|$", (PROJECT / "docs" / "guesses.md").read_text(), re.MULTILINE)
    )
    assert list(rows) == list(GUESSES)
    for guess, said in GUESSES.items():
        assert said.removeprefix("did you mean ").rstrip("?") in rows[guess]


def refusal(*arguments: str) -> str:
    with pytest.raises(SettingsError) as error:
        compose(arguments, conf=CONF)
    return str(error.value)


@pytest.mark.parametrize("guess", GUESSES)
def test_a_guess_is_answered_with_what_to_type(guess: str) -> None:
    said = refusal(guess)
    assert GUESSES[guess] in said
    assert "search path" not in said.lower(), "Hydra's"
    assert "\n" not in said


@pytest.mark.parametrize("guess", [g for g, said in GUESSES.items() if said.startswith("`") and "pip" not in said])
def test_what_is_to_be_typed_is_accepted(guess: str) -> None:
    (first, *_) = re.findall(r"`([^`]+)`", refusal(guess))
    words = shlex.split(first)
    needed = [] if any(w.startswith(("data=", "experiment=")) for w in words) else ["experiment=photos", "data.root=x"]
    compose([*needed, *words], conf=CONF)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("full_train.cycle_mlt=2", "nearest: full_train.cycle_mult"),
        ("+full_train.cycle_mult=2", "cannot be added or removed"),
        ("~full_train.lr", "cannot be added or removed"),
        ("++full_train.extra=2", "full_train.extra is not a setting"),
        ("cycle_mult=2", "nearest: full_train.cycle_mult, head_train_augmented.cycle_mult, head_train.cycle_mult"),
        ("dataa=folder", "nearest: data"),
        ("full_train.lr", "has no value"),
        ("data=digit", "did you mean data=digits?"),
        ("experiment=[photos,quik]", "did you mean experiment=quick?"),
        ("base=confs", "did you mean base=conf?"),
        ("model=mine.safetensors", "`model.weights=mine.safetensors`"),
        ("data=table.csv", "`data=csv data.root=table.csv`"),
        ("hydra/launcher=slrum", "installed: basic"),
        ("seed=f(x)", "cannot be read"),
    ],
)
def test_a_mistyped_override_is_refused(override: str, said: str) -> None:
    assert said in refusal(override)


@pytest.mark.parametrize("text", PATHS)
def test_a_path_needs_no_quotes_of_hydra(text: str) -> None:
    (meant,) = read_typed([f"data.root={text}"], conf=CONF)
    assert OverridesParser.create().parse_override(meant).value() == text


def test_a_path_with_quotes_of_hydra_is_read_as_hydra_does() -> None:
    assert compose(["data=folder", "data.root='a b'"], conf=CONF)["data"]["root"] == "a b"


def test_a_comma_separates_values_only_in_a_sweep() -> None:
    assert read_typed(["data.root=a,b"], conf=CONF) == ['data.root="a,b"']
    assert read_typed(["data.root=a,b"], conf=CONF, is_sweep=True) == ["data.root=a,b"]
    assert read_typed(["data.root=фото,b c"], conf=CONF, is_sweep=True) == ['data.root="фото","b c"']
    assert read_typed(["full_train.lr=0.1,0.2"], conf=CONF) == ["full_train.lr=0.1,0.2"]  # Hydra refuses it


def test_where_only_the_user_can_add_quotes_they_are_named_for_the_shell() -> None:
    with pytest.raises(SettingsError) as error:
        check_quoted(["data.root=2024"], conf=CONF)
    (word,) = shlex.split(str(error.value).partition("; type ")[2].strip("`"))
    check_quoted([word], conf=CONF)
    assert compose(["data=folder", word], conf=CONF)["data"]["root"] == "2024"


def test_groups_are_chosen_by_name_by_experiments_and_in_sweeps() -> None:
    assert chosen(["model=imagenet", "full_train.lr=0.1"], conf=CONF) == {"model"}
    assert chosen(["experiment=[photos,quick]"], conf=CONF) == {
        "experiment",
        "data",
        "model",
        "augment",
        "tta_evaluate",
    }
    assert chosen(["augment=none,symbols"], conf=CONF) == {"augment"}
    assert chosen(["full_train.cycle_len=1,2"], conf=CONF) == set()


def test_the_base_is_what_is_held_unless_it_is_named() -> None:
    assert names_base(["seed=1"]) == "held"
    assert names_base(["base=conf", "seed=1"]) == "conf"
