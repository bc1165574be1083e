"""Argument checks that operators share. Each message names operator, argument, rule and the value received."""

from __future__ import annotations

import operator as python_operators
from collections.abc import Mapping, Sequence
from typing import NoReturn

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ._native import FLOATS, INTEGERS

_MOST = torch.finfo(torch.float32).max


def squeeze_channel(logits: Tensor, target: Tensor) -> Tensor:
    """`[N, 1, *spatial]` targets, MONAI's habit, as `[N, *spatial]`."""
    return target.squeeze(1) if target.ndim == logits.ndim and target.shape[1] == 1 else target


def check_tensors(operator: str, tensors: Mapping[str, object], optional: Mapping[str, object] | None = None) -> None:
    """Tensors, all on one device; the optional ones may be None."""
    devices = {}
    given = {argument: tensor for argument, tensor in (optional or {}).items() if tensor is not None}
    for argument, tensor in {**tensors, **given}.items():
        if not isinstance(tensor, Tensor):
            or_none = " or None" if argument in given else ""
            raise TypeError(f"{operator}: {argument} must be a torch.Tensor{or_none}, got {_kind(tensor)}")
        devices[argument] = tensor.device
    found = list(devices.values())
    if all(device == found[0] for device in found):
        return
    common = max(found, key=found.count)
    argument = next(argument for argument, device in devices.items() if device != common)
    raise ValueError(
        f"{operator}: {argument} must be on the same device as the other arguments, {common}, got {devices[argument]}; "
        f"move it there with .to({str(common)!r})"
    )


def _kind(value: object) -> str:
    """What a value is that is no tensor, and how to make one of it."""
    kind = type(value)
    if value is None:
        return "None"
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(value, (list, tuple)) and any(
        isinstance(each, Tensor) and each.dtype == torch.bool for each in value
    ):
        return (
            f"{name} of bool tensors: use torch.stack, where a tensor is a label's, as collated lists are, with dim=1"
        )
    if isinstance(value, (list, tuple)) and any(isinstance(each, Tensor) for each in value):
        return f"{name} of tensors: call it for each of them, and add up what it gives (deep supervision)"
    if isinstance(value, Mapping):
        return f"{name} with {', '.join(map(repr, value))}: take the tensor out of it"
    if kind.__module__ == "numpy":
        return f"{name}: use torch.from_numpy, or torch.as_tensor"
    return f"{name}: use torch.tensor" if isinstance(value, (list, tuple)) else name


def refuse_transforms(operator: str, tensors: Mapping[str, Tensor | None]) -> None:
    """Derivatives forward in time and `torch.func`: the kernels would leave them out in silence."""
    if any(tensor is not None and forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors.values()):
        raise RuntimeError(
            f"{operator}: forward-mode derivatives (jvp, jacfwd, dual numbers) are not implemented; use reverse mode, "
            f"as in backward() or torch.autograd.grad, or backend='reference'"
        )
    if transformed():
        raise RuntimeError(
            f"{operator}: vmap is not implemented, nor are torch.func's grad, vjp and their kin; make a mapped "
            f"dimension part of N and use torch.autograd.grad, or backend='reference'"
        )


def refuse_vmap(operator: str, tensors: Mapping[str, Tensor]) -> None:
    """A mapped argument, where the rest of `torch.func` does no harm; in a compiled graph the operator itself does."""
    if torch.compiler.is_compiling() or not transformed():
        return
    for argument, tensor in tensors.items():
        while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
            if torch._C._functorch.is_batchedtensor(tensor):
                raise RuntimeError(
                    f"{operator}: vmap is not implemented, got a mapped {argument}; make the mapped dimension part of "
                    f"N, or use what labeldrop_bench.reference has for it"
                )
            tensor = torch._C._functorch.get_unwrapped(tensor)


def transformed() -> bool:
    """Whether a transform of `torch.func` is at work: tensors may then stand for many, or record derivatives."""
    return bool(torch._C._are_functorch_transforms_active())


def is_plain(tensor: Tensor) -> bool:
    """Whether it holds numbers: is not meta, records no graph, stands for one tensor (torch.func, batched grad)."""
    if torch.compiler.is_compiling() or type(tensor) is not Tensor or tensor.is_meta or transformed():
        return False
    return not torch._C._dispatch_keys(tensor).has("Batched")


def has_values(tensor: Tensor) -> bool:
    """Whether looking at a tensor's values neither makes the host wait for an accelerator nor breaks a graph."""
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling() and not transformed()


def integer(operator: str, argument: str, value: object) -> int:
    """An int, numpy's too; True and False would be a mistake."""
    if type(value) is int:
        return value
    if not isinstance(value, bool):
        try:
            return python_operators.index(value)  # type: ignore[arg-type]
        except TypeError:
            pass
    raise TypeError(f"{operator}: {argument} must be an integer, got {value!r} ({type(value).__name__})")


def check_images(operator: str, logits: Tensor, target: Tensor) -> None:
    """Logits `[N, K, *spatial]` of a float type and target `[N, *spatial]` of an integer type."""
    if logits.dtype not in FLOATS:
        raise TypeError(f"{operator}: logits must be one of {_names(FLOATS)}, got {logits.dtype}")
    if not 3 <= logits.ndim <= 5:
        raise ValueError(
            f"{operator}: logits must be [N, K, *spatial] with 1 to 3 spatial dimensions, "
            f"got shape {list(logits.shape)}"
        )
    check_target(operator, target)
    expected = [logits.shape[0], *logits.shape[2:]]
    if list(target.shape) != expected:
        raise ValueError(
            f"{operator}: target must be [N, *spatial] = {expected} to fit logits {list(logits.shape)}, "
            f"got {list(target.shape)}"
        )


def check_target(operator: str, target: Tensor) -> None:
    """An integer type that the kernels read."""
    if target.dtype not in INTEGERS:
        raise TypeError(f"{operator}: target must be one of {_names(INTEGERS)}, got {target.dtype}")


def check_channels(operator: str, channels: int, table: Tensor, per_class: int, why: str) -> int:
    """As many channels as the table's classes ask for; returns K."""
    classes = table.shape[-1] if table.ndim == 3 else channels // per_class
    if classes < 1:
        raise ValueError(f"{operator}: there must be at least one class, got tables of shape {list(table.shape)}")
    if channels != per_class * classes:
        times = "" if per_class == 1 else f"{per_class} x "
        raise ValueError(
            f"{operator}: logits must have {times}{classes} channels for tables of {classes} classes ({why}), "
            f"got {channels}"
        )
    return classes


def check_tables(operator: str, tables: Mapping[str, Tensor], samples: int, classes: int) -> None:
    """A rule's tables: `[N, L, K]` bool, of one shape."""
    first = next(iter(tables.values()))
    for argument, table in tables.items():
        if table.dtype != torch.bool:
            raise TypeError(f"{operator}: {argument} must be bool, got {table.dtype}")
        if table.ndim != 3 or table.shape[0] != samples or table.shape[2] != classes:
            raise ValueError(
                f"{operator}: {argument} must be [N, L, K] = [{samples}, L, {classes}], got {list(table.shape)}"
            )
        if table.shape[1] < 1:
            raise ValueError(f"{operator}: {argument} must have at least one label, got shape {list(table.shape)}")
        # One by one: sizes that are symbols, in a graph for any size, cannot be hashed.
        if table.shape != first.shape:
            shapes = " and ".join(str(list(each.shape)) for each in tables.values())
            raise ValueError(f"{operator}: {' and '.join(tables)} must have one shape, got {shapes}")


def check_weight(operator: str, argument: str, weight: Tensor, shape: Sequence[int]) -> None:
    """Weights of a floating type and a given shape, finite and not negative."""
    if not weight.is_floating_point():
        raise TypeError(f"{operator}: {argument} must be of a floating type, got {weight.dtype}")
    if list(weight.shape) != list(shape):
        raise ValueError(f"{operator}: {argument} must have shape {list(shape)}, got {list(weight.shape)}")
    refuse_gradient(operator, argument, weight, "backend='reference'")
    if has_values(weight) and weight.numel():
        least, most = map(float, weight.detach().aminmax())  # NaN if there is one, and no such number compares
        if least >= 0 and most < torch.inf:
            return
        bad = weight[~(weight.isfinite() & (weight >= 0))]
        raise ValueError(f"{operator}: {argument} must be finite and not negative, got {float(bad[0])}")


def refuse_gradient(operator: str, argument: str, weight: object, instead: str) -> None:
    """Weights that are learnt: their gradient would be left out in silence."""
    if isinstance(weight, Tensor) and weight.requires_grad and torch.is_grad_enabled():
        raise ValueError(
            f"{operator}: {argument} must not require a gradient, which there is none for, got a tensor that does; use "
            f"{argument}.detach(), or {instead} to learn it"
        )


def check_reduction(operator: str, reduction: str) -> None:
    """One of the three words."""
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"{operator}: reduction must be 'mean', 'sum' or 'none', got {reduction!r}")


def check_gamma(operator: str, gamma: float) -> None:
    """A focusing exponent, which the kernels take as float32."""
    if not 0 <= gamma <= _MOST:
        raise ValueError(f"{operator}: gamma must be finite and not negative, in float32 as well, got {gamma!r}")


def raise_invalid_label(operator: str, target: Tensor, flat_index: int, num_labels: int, ignore_index: int) -> NoReturn:
    """A pixel of a CPU target that is neither a label value nor ignore_index, named with its position."""
    position: list[int] = []
    rest = flat_index
    for size in reversed(target.shape):
        rest, index = divmod(rest, size)
        position.insert(0, index)
    raise ValueError(
        f"{operator}: target values must be label values 0 to {num_labels - 1} or ignore_index = {ignore_index}, "
        f"got {int(target.flatten()[flat_index])} at position {position}"
    )


def _names(dtypes: dict[torch.dtype, int]) -> str:
    return ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)


def check_labels(operator: str, target: Tensor, num_labels: int, ignore_index: int) -> None:
    """Values 0 to L-1 or ignore_index, on any device; the host waits for it."""
    target = target if target.dtype in INTEGERS else target.long()  # torch compares no larger unsigned integers
    # long: an ignore_index that does not fit the target's own type would be wrapped around
    is_bad = ((target < 0) | (target >= num_labels)) & (target.long() != ignore_index)
    flat = is_bad.flatten()
    if bool(flat.any()):
        raise_invalid_label(operator, target, int(flat.int().argmax()), num_labels, ignore_index)
