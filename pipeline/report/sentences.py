"""What a stage's verdicts mean in words, made from the JSON in its folder."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

Json = Mapping[str, Any]

RECIPE_RATIO = (3.0, 10.0)
"""Neighbouring layer groups' rates are a factor of 3 to 10 apart in the recipe."""

ROUNDING = 1e-9
"""1e-4 / 1e-5 is a little more than 10."""

OPTIMIZERS = {"sgd": "SGD with momentum", "adamw": "AdamW"}

_BATCH_NORM = {
    "frozen": "the statistics and affine weights of all batch-norm layers stay as pretrained",
    "train": "batch-norm layers of trained groups use and update batch statistics and train their affine weights; "
    "those of groups that are still frozen do not change",
}


def kept_model(kept: Json) -> str:
    """Name the model that a training stage keeps; `kept` is a part of `cycles.json`. Cycle 0 is before training."""
    cycles = kept["cycles"]
    if cycles == [0]:
        return "the model as it was before this stage"
    if len(cycles) == 1:
        return f"cycle {cycles[0]}"
    joined = "predictions" if kept["snapshots"] == "ensemble" else "weights"
    first = ", ".join(map(str, cycles[:-1]))
    before = " (0: before this stage)" if 0 in cycles else ""
    return f"the mean of the {joined} of cycles {first} and {cycles[-1]}{before}"


def kept_head(cycles: Json) -> str:
    """Name the head that the solver keeps; `cycles` is its `cycles.json`, with a weight decay for each cycle."""
    kept, decays = cycles["kept"]["cycles"], cycles["weight_decays"]
    if kept == [0]:
        return kept_model(cycles["kept"])
    names = [f"{decays[cycle - 1]:.2g}" for cycle in kept if cycle]
    before = ", and of the head as it was before this stage" if 0 in kept else ""
    if len(kept) == 1:
        return f"the head with weight decay {names[0]}"
    heads = f"heads with weight decay {', '.join(names[:-1])} and {names[-1]}"
    return f"the mean of the {heads if len(names) > 1 else f'head with weight decay {names[0]}'}{before}"


def tried_decays(decays: Sequence[float]) -> str:
    """Say for which weight decays a head was solved."""
    if len(decays) == 1:
        return f"with a weight decay of {decays[0]:.2g}"
    span = f"from {decays[0]:.2g} to {decays[-1]:.2g}"
    return f"for {len(decays)} weight decays {span}, until the loss on valid stops falling"


def kept_scores(cycles: Json) -> str:
    """Say how good the kept model is on validation images, and of which cycles it is; `cycles` is `cycles.json`."""
    kept = cycles["kept"]
    decays, last = cycles.get("weight_decays"), cycles["ends"][-1]["cycle"]
    if decays is None:
        which = f"cycle {' + '.join(map(str, kept['cycles']))} of {last}"
    else:
        names = (f"{decays[cycle - 1]:.2g}" if cycle else "none: as before" for cycle in kept["cycles"])
        which = f"weight decay {' + '.join(names)}; {last} tried"
    return f"valid loss {kept['valid_loss']:.4f}, accuracy {kept['valid_accuracy']:.4f} ({which})"


def kept_choice(kept: Json, ends: Sequence[Json]) -> str | None:
    """Compare the kept model with the best cycle alone; None where `snapshots` is `best`, which keeps just that."""
    if kept["snapshots"] == "best":
        return None
    if kept["snapshots"] == "cautious":
        return _cautious_choice(kept, ends)
    best = min(ends, key=lambda end: float(end["valid_loss"]))
    losses = f"valid loss {kept['valid_loss']:.4f}; of cycle {best['cycle']} alone {best['valid_loss']:.4f}"
    name = kept_model(kept)
    if kept["snapshots"] in ("average", "ensemble") and len(kept["cycles"]) == 1:
        return f"No mean of cycle ends was better on valid than {name} alone, which is kept ({losses})."
    return f"{capitalised(name)} is kept ({losses})."


def _cautious_choice(kept: Json, ends: Sequence[Json]) -> str:
    """Say whether the best cycle was taken whole, half or not, and how far its gain may be luck."""
    best = min(ends, key=lambda end: float(end["valid_loss"]))
    if kept["by_chance"] is None:
        return "No cycle was better on valid than the model as it was before this stage, which is kept."
    luck = (
        f"choosing the best of {counted(len(ends) - 1, 'cycle')} by luck alone would give as much in "
        f"{kept['by_chance']:.0%} of cases"
    )
    gain = f"from {ends[0]['valid_loss']:.4f} to {best['valid_loss']:.4f}"
    if kept["cycles"] == [best["cycle"]]:
        return f"Cycle {best['cycle']} is kept: it lowers the loss on valid {gain}, and {luck}."
    return (
        f"{capitalised(kept_model(kept))} is kept: cycle {best['cycle']} lowers the loss on valid {gain}, but {luck}."
    )


def overfitting(cycles: Json, *, stage: str) -> str:
    """Say when over-fitting began, or that it did not; `cycles` is the stage's `cycles.json`."""
    last, verdict, kept = cycles["ends"][-1]["cycle"], cycles["verdict"], kept_model(cycles["kept"])
    since = verdict["overfitting_since_cycle"]
    if since is not None:
        return f"Over-fitting began in cycle {since}; {kept} is kept."
    if verdict["best_cycle"] != last:
        return f"Cycle {last} ended no better on validation images, without over-fitting; {kept} is kept."
    return (
        f"No over-fitting after {last} of {cycles['num_cycles']} cycles, and the last cycle was the best: "
        f"a higher {stage}.num_cycles may do better."
    )


def gap(cycles: Json) -> str | None:
    """Say how far apart the losses on validation and on training images are in the end; None in older results."""
    if (plain := cycles.get("train_plain")) is None:
        return None
    end = cycles["ends"][-1]
    return (
        f"After the last cycle the loss is {end['valid_loss']:.4f} on validation images and {end['train_loss']:.4f} on "
        f"training images without augmentation ({plain['images']:,} of them, standard error "
        f"{plain['standard_error']:.4f})."
    )


def similarity(found: Json, *, lr_setting: str = "full_train.lr") -> str:
    """Say whether the data is like that of pretraining; `found` is a part of `verdict.json`."""
    low, high = found["interval"]
    span = f"{found['change']:+.4f} (95 % interval {low:+.4f} to {high:+.4f})"
    match found["outcome"]:
        case "similar":
            return f"The data is very similar to the pretraining data: training all layers changed the loss by {span}."
        case "different":
            return f"The data differs from the pretraining data: training all layers changed the loss by {span}."
        case "unclear":
            return (
                "Whether the data is like the pretraining data cannot be told, because the validation images are too "
                f"few: training all layers changed the loss by {span}."
            )
    return f"The first cycle after unfreezing made the loss worse, by {span}: try a lower {lr_setting}."


def movement(groups: Sequence[Json]) -> str:
    """Say how far each layer group moved in the first cycle; `groups` is a part of `verdict.json`'s similarity."""
    moved = (f"{g['name']} {g['weights']:.2%} (feature similarity {g['features_cka']:.3f})" for g in groups)
    return f"Weights changed in the first cycle by: {', '.join(moved)}."


def full_train_verdict(cycles: Json, verdict: Json) -> list[str]:
    """Return all that `full_train` found, from its `cycles.json` and `verdict.json`."""
    found, rates = verdict["similarity"], verdict.get("rates")
    lr_setting = "full_train.lr" if rates is None else "unfreeze.lrs"
    sentences = (
        given_rates(rates),
        overfitting(cycles, stage="full_train"),
        gap(cycles),
        kept_choice(cycles["kept"], cycles["ends"]),
    )
    return [s for s in (*sentences, similarity(found, lr_setting=lr_setting)) if s is not None]


def ratio_warning(ratio: float) -> str | None:
    """Say what is wrong with an `unfreeze.lr_ratio` outside the recipe's range; None for one inside."""
    low, high = RECIPE_RATIO
    if ratio < low:
        return (
            f"warning: unfreeze.lr_ratio={ratio:g} is below {low:g}: early layers, which hold features common to all "
            "images, change almost as fast as the head, and what pretraining taught them may be forgotten"
        )
    if ratio > high:
        return (
            f"warning: unfreeze.lr_ratio={ratio:g} is above {high:g}: early layers hardly learn, so training them "
            "takes time for little gain"
        )
    return None


def lrs_warnings(lrs: Sequence[float], names: Sequence[str]) -> list[str]:
    """Say which neighbouring layer groups have rates of `unfreeze.lrs` that are not a factor of 3 to 10 apart."""
    low, high = RECIPE_RATIO
    pairs = zip(pairwise(lrs), pairwise(names), strict=True)
    return [
        f"warning: unfreeze.lrs={list(lrs)}: {after} learns at {there / here:.3g} times the rate of {before}, and the "
        f"recipe says {low:g} to {high:g}"
        for (here, there), (before, after) in pairs
        if not low * (1 - ROUNDING) <= there / here <= high * (1 + ROUNDING)
    ]


def rate_warnings(plan: Json) -> list[str]:
    """Return what is wrong with the rates of the layer groups; `plan` is `plan.json`."""
    if lrs := plan.get("lrs"):
        return lrs_warnings(lrs, [group["name"] for group in plan["groups"]])
    warning = ratio_warning(plan["lr_ratio"])
    return [] if warning is None else [warning]


def optimizer(plan: Json) -> str | None:
    """Say which optimizer trains the whole model, and why; None for a `plan.json` that does not say it yet."""
    if "optimizer" not in plan:
        return None
    why = "chosen by the architecture" if plan["optimizer_setting"] == "auto" else "as set"
    return f"The optimizer of full_train is {OPTIMIZERS[plan['optimizer']]}, {why}."


def given_rates(rates: Json | None) -> str | None:
    """Say that `unfreeze.lrs` was used instead of the finder's rate; `rates` is a part of `verdict.json`."""
    if rates is None:
        return None
    return (
        f"Trained at the rates of unfreeze.lrs={rates['given']}; the rate that lr_find_full found for the head, "
        f"{rates['found_lr']:.3g}, was not used."
    )


def batch_norm(policy: str) -> str:
    """Say what `unfreeze.batch_norm` does."""
    return f"Batch norm ({policy}): {_BATCH_NORM[policy]}."


def cross_validation(metrics: Json) -> str:
    """Say how good heads on activations are; `metrics` is `metrics.json` of `cross_validate`."""
    return (
        f"{metrics['num_images']} images of train and valid in {metrics['num_folds']} folds: heads on activations "
        f"classify {metrics['accuracy']:.2%} correctly (95 % interval {metrics['accuracy_low']:.2%} to "
        f"{metrics['accuracy_high']:.2%}), with a log loss of {metrics['log_loss']:.4f} "
        f"({metrics['log_loss_low']:.4f} to {metrics['log_loss_high']:.4f}). No head has seen the images that it is "
        "judged by, nor an image of their group."
    )


def suspects(metrics: Json) -> str:
    """Say how many labels look wrong, and where they are listed."""
    count = metrics["num_suspects"]
    if not count:
        return "no label looks wrong"
    looks = "label looks" if count == 1 else "labels look"
    return f"{count} {looks} wrong: artifacts/cross_validate/suspects.csv"


def unknown_classes(metrics: Json) -> list[str]:
    """Say how many images could not be judged, if any."""
    if not (count := metrics["num_unknown"]):
        return []
    return [
        f"{counted(count, 'image')} cannot be judged: all images of the class are in one fold, because they are one "
        "group or copies of one"
    ]


def lr_notes(choice: Json) -> list[str]:
    """Return what makes the learning-rate finder's choice doubtful; `choice` is `lr.json`."""
    notes = [f"no rate can be read in the range {failed}" for failed in choice.get("widened", [])]
    if not choice.get("usable", True):
        return [*notes, f"warning: no range gives a rate; lr {choice['lr']:.3g} is taken, which is known to be safe"]
    if choice["rule"] == "recipe" and not choice["improved"]:
        notes.append("the loss clearly falls at no rate: a third of the highest harmless rate is chosen")
    return [*notes, *(f"one sweep gave no rate: {reason}" for reason in choice["unusable"])]


def lr_choice(choice: Json) -> str:
    """Say which rate was chosen, and why; `choice` is `lr.json`."""
    if not choice.get("usable", True):
        return (
            f"No rate could be read off the sweeps: {choice['lr']:.3g} is taken, which is known to be safe. Tried: "
            f"{'; '.join(choice['widened'])}."
        )
    if choice["rule"] != "recipe":
        why = f"by the rule `{choice['rule']}`"
    elif choice["improved"]:
        why = "the highest rate at which the loss still clearly improves"
    else:
        why = "a third of the highest rate at which the loss does not clearly rise (it clearly falls at none)"
    return f"Chosen: {choice['lr']:.3g}, {why}; {lr_sweeps(choice)}."


def lr_sweeps(choice: Json) -> str:
    """Say how many sweeps gave the rate, and by which factor they differ; `choice` is `lr.json`."""
    if choice["spread"] is None:
        return "from one sweep"
    return f"spread x{choice['spread']:.2f} over {len(choice['repeats'])} sweeps"


def tta_mode(scores: Json, card: Json) -> str:
    """Say how test-time augmentation was done, from a split's scores and from `model/tta.json`."""
    num_views = scores["num_views"]
    average = "" if float(num_views).is_integer() else " on average"
    text = f"Mode {card['tta']['mode']}: each image is predicted plain and from {num_views:.3g} more views{average}"
    if card["plain_weight"] is None:
        return f"{text}, all with the same weight."
    return (
        f"{text}; the plain image has a weight of {card['plain_weight']:.0%}, which gave the lowest log loss on valid "
        "(so the TTA scores on valid are optimistic)."
    )


def tta_gain(split: str, scores: Json) -> str:
    """Say what test-time augmentation changes on a split."""
    accuracy, loss = scores["tta_gain"]["accuracy"], scores["tta_gain"]["log_loss"]
    return (
        f"On {split}, TTA changes the accuracy by {points(accuracy['mean'])} points (95 % interval "
        f"{points(accuracy['low'])} to {points(accuracy['high'])}; McNemar's exact p = "
        f"{scores['tta_gain_p_value']:.2g}) and the log loss by {-loss['mean']:+.4f} "
        f"({-loss['high']:+.4f} to {-loss['low']:+.4f})."
    )


def calibration(found: Json) -> list[str]:
    """Say what calibrating changes on test, and what sets of classes hold there; `found` is of plain images or of TTA.

    Nothing is said without test images: on valid, where it was fitted, the figures would be flattering.
    """
    if "test" not in found:
        return []
    test, change = found["test"], found["test"]["log_loss_change"]
    said = [
        f"probabilities at temperature {found['temperature']:.3g} have a log loss of {test['log_loss_after']:.4f} "
        f"instead of {test['log_loss_before']:.4f} (change {change['mean']:+.4f}, 95 % {change['low']:+.4f} to "
        f"{change['high']:+.4f}) and a calibration error of {test['calibration_error_after']:.4f} instead of "
        f"{test['calibration_error_before']:.4f}"
    ]
    held = [f"asked for {level} %, {set_coverage(sets)}" for level, sets in class_sets(test).items()]
    return said + ([f"sets of classes hold the true one: {'; '.join(held)}"] if held else [])


def class_sets(test: Json) -> dict[str, Json]:
    """Return the scores of sets of classes by the coverage that was asked for, in percent."""
    return {name.removeprefix("sets_"): sets for name, sets in test.items() if name.startswith("sets_")}


def set_coverage(sets: Json) -> str:
    """Say how often sets of classes hold the true one, and how large they are."""
    return (
        f"{sets['coverage']:.1%} ({sets['coverage_low']:.1%} to {sets['coverage_high']:.1%}) with "
        f"{sets['mean_size']:.2f} classes on average"
    )


def points(share: float) -> str:
    """Write a difference of shares in percentage points, with its sign."""
    return f"{100 * share:+.2f}"


def counted(count: int, noun: str) -> str:
    """Write a number with its noun, which takes an s."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def capitalised(text: str) -> str:
    """Return `text` with a capital first letter, the rest as it is."""
    return text[:1].upper() + text[1:]
