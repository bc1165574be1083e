"""What holds for every fused operator: how it is registered, what it refuses. A new one is found by itself."""

import inspect
from importlib import import_module

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from labeldrop_bench import ops, reference

OPERATORS = [name for name in ops.__all__ if hasattr(reference, name)]
LOSSES = [name for name in OPERATORS if "logits" in inspect.signature(getattr(ops, name)).parameters]
REGISTERED = [name for name in torch._C._dispatch_get_all_op_names() if name.startswith("labeldrop::")]
every_operator = pytest.mark.parametrize("name", OPERATORS)


def example(name):
    """All its tensors, by the names that every operator gives them: N = 2, L = K = 3, 4 x 4 pixels."""
    module = import_module(f"labeldrop_bench.ops.{name}")
    channels = 3 * getattr(module._OPERATOR, "channels_per_class", 1) if hasattr(module, "_OPERATOR") else 3
    table = torch.eye(3, dtype=torch.bool).expand(2, -1, -1)
    tensors = {
        "logits": torch.randn(2, channels, 4, 4),
        "target": torch.randint(0, 3, (2, 4, 4)),
        "annotated": torch.ones(2, 3, dtype=torch.bool),
        "candidates": table,
        "positive": table,
        "counted": torch.ones_like(table),
        "active": torch.ones_like(table),
        "merged": torch.zeros(2, 3, dtype=torch.bool),
        "label_weight": torch.ones(2, 3),
        "class_weight": torch.ones(3),
        "pixel_weight": torch.ones(2, 4, 4),
        "probability": torch.tensor([0.0, 0.5, 0.5]),
        "key": torch.tensor([7]),
    }
    parameters = inspect.signature(getattr(ops, name)).parameters.values()
    return {p.name: tensors[p.name] for p in parameters if "Tensor" in str(p.annotation)}


def is_optional(name, argument):
    return inspect.signature(getattr(ops, name)).parameters[argument].default is None


def first(result):
    return result if isinstance(result, Tensor) else result[0]


@pytest.mark.parametrize("qualified", REGISTERED)
def test_a_registered_operator_has_results_without_values_and_refuses_vmap(qualified):
    for key in ("CompositeExplicitAutograd", "Meta", "FuncTorchBatched"):
        assert torch._C._dispatch_has_kernel_for_dispatch_key(qualified, key), key


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_and_its_backward_are_registered_with_autograd(name):
    for qualified in (f"labeldrop::{name}", f"labeldrop::{name}_backward"):
        assert qualified in REGISTERED
        assert torch._C._dispatch_has_kernel_for_dispatch_key(qualified, "Autograd")


@every_operator
def test_what_is_no_tensor_is_named_with_what_to_do(name):
    arguments = example(name)
    for argument, tensor in arguments.items():
        for wrong, advice in (
            (tensor.numpy(), "numpy.ndarray: use torch.from_numpy"),
            ([tensor], r"list of (bool )?tensors"),
        ):
            with pytest.raises(TypeError, match=rf"{name}: {argument} must be a torch.Tensor.*, got {advice}"):
                getattr(ops, name)(**{**arguments, argument: wrong})
        if not is_optional(name, argument):
            with pytest.raises(TypeError, match=f"{name}: {argument} must be a torch.Tensor, got None"):
                getattr(ops, name)(**{**arguments, argument: None})


@every_operator
def test_a_wrong_device_is_blamed_on_the_argument_that_is_on_it(name):
    arguments = example(name)
    for argument, tensor in arguments.items():
        with pytest.raises(ValueError, match=rf"{name}: \w+ must be on the same device .* got \w+; move it") as error:
            getattr(ops, name)(**{**arguments, argument: tensor.to("meta")})
        # of two arguments, either may be meant
        assert len(arguments) == 2 or f"{argument} must be" in str(error.value)


TABLES = ("candidates", "positive", "counted", "active")
LABEL_AXES = {**dict.fromkeys((*TABLES, "annotated", "label_weight"), 1), "probability": 0}
CLASS_AXES = {**dict.fromkeys(TABLES, 2), "merged": 1, "class_weight": 0, "logits": 1}


@every_operator
@pytest.mark.parametrize(("axes", "message"), [(LABEL_AXES, "at least one label"), (CLASS_AXES, "at least one class")])
def test_no_labels_and_no_classes_are_errors(name, axes, message):
    arguments = example(name)
    if axes is CLASS_AXES and name not in LOSSES:
        pytest.skip("knows nothing of classes")
    none = {key: each.narrow(axes[key], 0, 0) for key, each in arguments.items() if key in axes}
    with pytest.raises(ValueError, match=rf"{name}: .*{message}"):
        getattr(ops, name)(**{**arguments, **none})


@every_operator
def test_an_empty_batch(name):
    arguments = example(name)
    batched = {key: each[:0] for key, each in arguments.items() if each.ndim > 1}
    assert first(getattr(ops, name)(**{**arguments, **batched})).sum() == 0


@every_operator
def test_integers_of_numpy_are_integers_and_a_bool_is_none(name):
    arguments = example(name)
    for option in inspect.signature(getattr(ops, name)).parameters.values():
        if option.annotation == "int":
            values = []
            for value in (5, np.int64(5), np.uint8(5)):
                torch.manual_seed(0)
                values.append(first(getattr(ops, name)(**arguments, **{option.name: value})))
            assert torch.equal(values[0], values[1])
            assert torch.equal(values[0], values[2])
            for wrong in (True, np.True_, 5.0, "5"):
                with pytest.raises(TypeError, match=f"{name}: {option.name} must be an integer, got .*(5|True)"):
                    getattr(ops, name)(**arguments, **{option.name: wrong})


@pytest.mark.parametrize("name", LOSSES)
def test_dual_numbers_are_refused_in_every_argument(name):
    arguments = example(name)
    for argument, tensor in arguments.items():
        if tensor.is_floating_point():
            with forward_ad.dual_level():
                dual = forward_ad.make_dual(tensor, torch.ones_like(tensor))
                with pytest.raises(RuntimeError, match=f"{name}: forward-mode derivatives"):
                    getattr(ops, name)(**{**arguments, argument: dual})


@every_operator
def test_vmap_is_refused_whatever_is_mapped(name):
    arguments = example(name)
    for argument, tensor in arguments.items():
        others = {key: each for key, each in arguments.items() if key != argument}
        with pytest.raises(RuntimeError, match=f"{name}: vmap is not implemented"):
            torch.vmap(lambda x, others=others, argument=argument: getattr(ops, name)(**others, **{argument: x}))(
                torch.stack([tensor, tensor])
            )
