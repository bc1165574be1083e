"""Arguments of the losses' constructors: each is described in every loss's docstring, and one that is none gets a hint.

A loss states the arguments that it adds; those that it takes over are described where they come from, once.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Sequence
from difflib import get_close_matches

import torch
from torch import Tensor, nn

from labeldrop_bench import ops
from labeldrop_bench.constants import device_with_values

# What torch, MONAI, nnU-Net and their kin call an argument, and which of ours is meant.
OTHER_NAMES = {
    "activation": ["softmax", "sigmoid", "from_logits", "apply_nonlin"],
    "base": ["focal", "focal_loss"],
    "batch": ["batch_dice", "per_image"],
    "class_weights": ["weight", "weights", "class_weight", "weight_ce", "pos_weight"],
    "detach_target": ["detach"],
    "ignore_index": ["ignore_label", "ignore_value", "ignored_index", "void_label"],
    "include_background": ["do_bg", "exclude_background", "ignore_background"],
    "num_classes": ["num_class", "n_classes", "nclasses", "classes", "num_labels", "out_channels", "in_channels"],
    "label_space": ["labels", "class_names", "regions"],
    "process_group": ["ddp", "group", "sync"],
    "reduction": ["size_average", "reduce"],
    "samples": ["num_samples", "n_samples", "mc_samples"],
    "squared": ["squared_pred", "square"],
}
# What such an argument is for, where we have none.
ADVICE = {
    "to_onehot_y": "targets are label values, never one-hot: leave it out",
    "label_smoothing": "there is no smoothing of labels",
    "include_background": "only the Dice losses have it; a class weight of 0 for background leaves that out",
    "pixel_weight": "it belongs to the call: loss(logits, target, annotated, pixel_weight=weight)",
    "annotated": "it belongs to the call: loss(logits, target, annotated)",
}


class Explained(nn.Module):
    """A module whose docstring describes every argument, and that says which argument a wrong word may mean."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if vars(cls).get("__doc__"):
            cls.__doc__ = _with_all_arguments(cls)

    def __new__(cls, *_: object, **options: object) -> Explained:
        known = inspect.signature(cls).parameters
        unknown = set(options).difference(known)
        if unknown and not any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
            raise TypeError(f"{cls.__name__}: {no_such_arguments(unknown, list(known))}")
        return super().__new__(cls)


def no_such_arguments(unknown: Collection[str], known: Sequence[str]) -> str:
    """What to do about arguments that there are not."""
    names = sorted(unknown)
    hints = [f"{name}: {hint}" if len(names) > 1 else hint for name in names if (hint := _hint(name, known))]
    return f"no argument {' or '.join(map(repr, names))}; {'; '.join([*hints, 'there are ' + ', '.join(known)])}"


def _hint(name: str, known: Sequence[str]) -> str:
    meant = [ours for ours, theirs in OTHER_NAMES.items() if name in theirs and ours in known]
    if not meant and name in ADVICE:
        return ADVICE[name]
    close = meant or get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else ""


_SECTION = re.compile(r"^Args:\n((?: {4}.*\n)+)", re.MULTILINE)
_ENTRY = re.compile(r"^ {4}(\w+):.*\n(?: {5,}.*\n)*", re.MULTILINE)


def _with_all_arguments(cls: type) -> str:
    """The docstring with a description of all arguments that the class takes, in their order."""
    entries: dict[str, str] = {}
    for ancestor in reversed(cls.__mro__):
        section = _SECTION.search(_text(ancestor))
        entries |= {entry[1]: entry[0] for entry in _ENTRY.finditer(section[1] if section else "")}
    described = [entries[name] for name in inspect.signature(cls).parameters if name in entries]
    if not described:
        return _text(cls)
    before, raises, after = _SECTION.sub("", _text(cls)).partition("Raises:\n")
    return "\n".join([before.rstrip() + "\n", "Args:", "".join(described)]) + ("\n" if raises else "") + raises + after


def _text(cls: type) -> str:
    return inspect.cleandoc(vars(cls).get("__doc__") or "") + "\n"


# ---- values ----


def check_choice(loss: str, argument: str, value: str, choices: Collection[str]) -> None:
    """One of some words."""
    if value not in choices:
        raise ValueError(f"{loss}: {argument} must be one of {sorted(choices)}, got {value!r}")


def check_count(loss: str, argument: str, value: object, least: int) -> int:
    """A whole number of any kind, numpy's too, from `least`."""
    count = ops.integer(loss, argument, value)
    if count < least:
        raise ValueError(f"{loss}: {argument} must be an integer from {least}, got {count}")
    return count


def as_weights(loss: str, weights: Sequence[float] | Tensor | None, count: int, meaning: str) -> Tensor | None:
    """Class weights as users give them, `[count]` float64, or None.

    Raises:
        TypeError: no numbers.
        ValueError: another number of weights, one that is negative or not finite, or weights that want a gradient.
    """
    if weights is None:
        return None
    rule = f"{loss}: class_weights must be {count} numbers, {meaning}"
    ops.refuse_gradient(loss, "class_weights", weights, "a factor of your own of what reduction='none' gives")
    device = weights.device if isinstance(weights, Tensor) else device_with_values()
    try:
        with torch.inference_mode(False):  # the loss may be used outside of it
            values = torch.as_tensor(weights, dtype=torch.float64, device=device).detach().clone()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{rule}; got {weights!r}") from error
    if values.is_meta:
        raise ValueError(f"{rule}; got a tensor on the meta device, which has no values")
    if values.shape != (count,):
        raise ValueError(f"{rule}; got shape {list(values.shape)}")
    bad = values[~(values.isfinite() & (values >= 0))]
    if bad.numel():
        raise ValueError(f"{loss}: class_weights must be finite and not negative, got {values.tolist()}")
    return values
