"""MONAI's arguments of losses: those that mean the same here, nothing here, or another thing."""

from __future__ import annotations

from typing import Any

from torch import nn

from labeldrop_bench import losses

_NAME = "PartialLabelLoss"
# MONAI's argument: the values that change nothing, and what to do about others.
NO_MATTER: dict[str, tuple[tuple[object, ...], str]] = {
    "to_onehot_y": ((True, False), ""),  # targets of both forms are read as what they are
    "other_act": ((None,), "the loss wants logits, as the network gives them"),
    "jaccard": ((False,), "there is no Jaccard form of the Dice losses"),
    "soft_label": ((False,), "a pixel of the target has one label"),
    "label_smoothing": ((0,), "there is no smoothing of labels"),
    "smooth_nr": ((1e-5,), "it is 1e-5, so that a class that is nowhere costs nothing"),
    "smooth_dr": ((1e-5,), "it is 1e-5"),
    "weight": ((None,), "use class_weights, whose mean is a weighted one in the Dice losses too"),
    "lambda_dice": ((1,), "use weights, a factor for each term of the sum"),
    "lambda_ce": ((1,), "use weights, a factor for each term of the sum"),
    "ignore_index": ((None,), ""),
}
READING = {"softmax": "softmax", "use_softmax": "softmax", "sigmoid": "sigmoid"}


def make_loss(loss: str | nn.Module, options: dict[str, Any]) -> nn.Module:
    """The loss of a name, or the one that was given, where MONAI's arguments agree with it.

    Raises:
        TypeError: neither a name nor a module; options with a module, which has its own; what `losses.create` raises.
        ValueError: an argument of MONAI's whose value would mean another thing here.
    """
    if not isinstance(loss, (str, nn.Module)):
        raise TypeError(
            f"{_NAME}: loss must be a name, as in 'marginal_ce+marginal_dice', or a loss of labeldrop_bench, got "
            f"{loss!r}"
        )
    own = {key: value for key, value in options.items() if not _changes_nothing(key, value)}
    reading = {key: own.pop(key) for key in READING if key in own}
    if isinstance(loss, nn.Module):
        if own:
            raise TypeError(
                f"{_NAME}: {', '.join(sorted(own))} must be given to the loss itself, which is made already"
            )
        made = loss
    else:
        made = losses.create(loss, **_translated(loss, own))
    _check_reading(made, reading)
    return made


def _changes_nothing(key: str, value: object) -> bool:
    harmless, advice = NO_MATTER.get(key, ((), ""))
    if value in harmless:
        return True
    if advice:
        raise ValueError(f"{_NAME}: {key} must be {harmless[0]} or left out, got {value!r}: {advice}")
    return False


def _translated(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """By our names, without what a loss that has no Dice cannot be asked for anyway."""
    known = losses.options_of(name)
    options = {{"squared_pred": "squared"}.get(key, key): value for key, value in options.items()}
    for key, nothing in (("squared", False), ("include_background", True)):
        if key in options and key not in known and options[key] == nothing:
            del options[key]
    if "include_background" in options and losses.info(name.split("+")[0].strip()).channels != "K":
        del options["include_background"]  # there is no channel of background
    return options


def activation_of(loss: nn.Module) -> str | None:
    """How a loss reads its channels: "softmax", "sigmoid", or None where a loss of another package does not say."""
    first = loss.terms[0] if isinstance(loss, losses.SumOfLosses) else loss
    return getattr(first, "activation", None)


def _check_reading(loss: nn.Module, reading: dict[str, Any]) -> None:
    """MONAI's losses are told how to make probabilities; ours do it in one way."""
    ours = activation_of(loss)
    for key, value in reading.items():
        if ours is not None and bool(value) != (READING[key] == ours):
            raise ValueError(
                f"{_NAME}: {key}={value!r} does not fit {type(loss).__name__}, which reads logits by {ours}: leave it "
                f"out; of the names, 'bce' and its kin read by sigmoid, and with activation='sigmoid' the Dice losses"
            )
