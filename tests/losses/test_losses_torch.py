"""Every loss as a citizen of PyTorch: saved tensors, transforms, tracing, the first step; and what is no tensor."""

import subprocess
import sys

import pytest
import torch
from every_loss import NAMES, create, every_loss, example, value_and_gradient
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

import labeldrop_bench as lb

# ---- saved tensors ----


@every_loss
@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_checkpointing_and_hooks_of_saved_tensors(name, factor):
    """Hooks that hand a saved tensor out only once, as non-reentrant checkpointing's do."""
    loss = create(name)
    logits, target, annotated = example(loss)

    def plain(z):
        return loss(2 * z, target, annotated)

    def hooked(z):
        taken = set()

        def unpack(packed):
            assert id(packed) not in taken, "a saved tensor was read twice"
            taken.add(id(packed))
            return packed[0]

        with torch.autograd.graph.saved_tensors_hooks(lambda tensor: (tensor.clone(),), unpack):
            return plain(z)

    expected = value_and_gradient(plain, logits, factor)
    for function in (hooked, lambda z: checkpoint(plain, z, use_reentrant=False)):
        torch.testing.assert_close(value_and_gradient(function, logits, factor), expected, rtol=0, atol=0)


@every_loss
def test_checkpointing_keeps_nothing_of_the_logits_size(name):
    """Between the passes no tensor may live in a place that hooks cannot see, such as an attribute of the context."""
    loss = create(name)
    logits, target, annotated = example(loss, size=64)
    logits.requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        value = loss(logits, target, annotated)
    node, others = value.grad_fn, []
    while node is not None:  # a chain, but for sums
        others += [each for each in getattr(node, "__dict__", {}).values() if isinstance(each, torch.Tensor)]
        node = next((parent for parent, _ in node.next_functions if parent is not None), None)
    assert all(each.numel() < logits.numel() for each in others)
    assert any(each.numel() == logits.numel() for each in kept)


@every_loss
def test_a_retained_graph_gives_the_same_gradient_again(name):
    loss = create(name)
    logits, target, annotated = example(loss)
    logits.requires_grad_()
    value = loss(logits, target, annotated)
    (first,) = torch.autograd.grad(value, logits, retain_graph=True)
    kept = first.clone()
    first.zero_()  # it is the caller's
    for _ in range(2):
        (again,) = torch.autograd.grad(value, logits, retain_graph=True)
        torch.testing.assert_close(again, kept, rtol=1e-5, atol=1e-8)  # formed by another pass
        again.zero_()


# ---- transforms: right, or refused by name ----


def dual_numbers(function, logits):
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(function(forward_ad.make_dual(logits, torch.ones_like(logits)))).tangent


FORWARD_MODE = {
    "jvp": lambda f, z: torch.func.jvp(f, (z,), (torch.ones_like(z),)),
    "jacfwd": lambda f, z: torch.func.jacfwd(f, randomness="same")(z),
    "dual numbers": dual_numbers,
    "compiled jvp": lambda f, z: torch.compile(FORWARD_MODE["jvp"], backend="aot_eager")(f, z),
}
FUNCTIONAL = {
    "grad": lambda f, z: torch.func.grad(f)(z),
    "vjp": lambda f, z: torch.func.vjp(f, z)[1](torch.tensor(1.0)),
    "jacrev": lambda f, z: torch.func.jacrev(f)(z),
    "hessian": lambda f, z: torch.func.jacfwd(torch.func.jacrev(f), randomness="same")(z),
    "vmap of grad": lambda f, z: torch.vmap(torch.func.grad(f))(torch.stack([z, z])),
    "compiled grad": lambda f, z: torch.compile(FUNCTIONAL["grad"], backend="aot_eager")(f, z),
}


@every_loss
@pytest.mark.parametrize("transform", FORWARD_MODE)
def test_forward_mode_is_refused(name, transform):
    torch.compiler.reset()
    loss = create(name)
    logits, target, annotated = example(loss)
    with pytest.raises(RuntimeError, match=r"\w+: forward-mode derivatives .* are not implemented.*reference"):
        FORWARD_MODE[transform](lambda z: loss(z, target, annotated), logits)


@every_loss
@pytest.mark.parametrize("transform", FUNCTIONAL)
def test_transforms_of_torch_func_are_refused(name, transform):
    torch.compiler.reset()
    loss = create(name)
    logits, target, annotated = example(loss)
    with pytest.raises(RuntimeError, match=r"\w+: vmap is not implemented, nor are torch.func's grad.*reference"):
        FUNCTIONAL[transform](lambda z: loss(z, target, annotated), logits)


@every_loss
@pytest.mark.parametrize("argument", range(3))
def test_vmap_is_refused_whatever_is_mapped(name, argument):
    arguments = example(create(name))
    places = tuple(0 if place == argument else None for place in range(3))
    mapped = [torch.stack([each, each]) if place == argument else each for place, each in enumerate(arguments)]
    with pytest.raises(RuntimeError, match=r"\w+: vmap is not implemented"):
        torch.vmap(create(name), places)(*mapped)
    # what the message says to do instead
    plain = torch.vmap(create(name, backend="reference"), places, randomness="same")(*mapped)
    assert plain.shape == (2,)
    assert plain[0] == plain[1]


@every_loss
def test_the_reference_has_every_transform(name):
    if name == "predictive_variance":
        pytest.skip("draws noise, which has no derivative to compare")
    loss = create(name, backend="reference")
    logits, target, annotated = example(loss)
    logits = logits.double()

    def function(z):
        return loss(z, target, annotated)

    expected = value_and_gradient(function, logits)[1]
    torch.testing.assert_close(torch.func.grad(function)(logits), expected)
    torch.testing.assert_close(torch.func.jacfwd(function)(logits), expected)


@pytest.mark.parametrize("operator", ["LabelDropout", "drop_labels"])
def test_what_has_no_derivative_refuses_vmap_alone(operator):
    annotated = torch.ones(2, 4, dtype=torch.bool)
    target = torch.randint(0, 4, (2, 3))
    function = {"LabelDropout": lb.LabelDropout(0.5), "drop_labels": lambda a: lb.drop_labels(target, a)}[operator]
    with pytest.raises(RuntimeError, match=f"{operator}: vmap is not implemented, got a mapped annotated"):
        torch.vmap(function)(torch.stack([annotated, annotated]))
    torch.func.grad(lambda x: x.sum() + 0 * function(annotated).sum())(torch.ones(3))


@every_loss
def test_a_jacobian_of_batched_upstream_gradients(name):
    loss = create(name)
    logits, target, annotated = example(loss)
    value = loss(logits.requires_grad_(), target, annotated)
    upstream = torch.tensor([1.0, 2.0, -3.0])
    (together,) = torch.autograd.grad(value, logits, upstream, retain_graph=True, is_grads_batched=True)
    for factor, gradient in zip(upstream, together, strict=True):
        torch.testing.assert_close(gradient, torch.autograd.grad(value, logits, factor, retain_graph=True)[0])


# ---- other graphs ----


@every_loss
@pytest.mark.filterwarnings("ignore")  # of torch.jit, that it is deprecated and that sizes become constants
def test_traced_and_exported_losses_take_other_sizes(name):
    loss = create(name)
    samples = torch.export.Dim("samples", min=1, max=64)
    forms = [
        torch.jit.trace(loss, example(loss), check_trace=False),
        torch.export.export(loss, example(loss), dynamic_shapes=({0: samples},) * 3).module(),
    ]
    for count in (2, 5):
        arguments = example(loss, samples=count)
        values = []
        for form in (loss, *forms):
            torch.manual_seed(0)
            values.append(form(*arguments))
        assert values[0] == values[1] == values[2]


def test_a_first_step_does_not_import_the_compiler(tmp_path):
    """Sympy alone takes a second of each process. (An optimizer imports torch's compiler by itself.)"""
    script = f"""
import sys, torch, labeldrop_bench as lb
before = "sympy" in sys.modules
annotated = torch.ones(2, 4, dtype=torch.bool)
for name in {NAMES!r}:
    loss = lb.losses.create(name, num_classes=4)
    target = torch.randint(0, 4, (2, 4, 4))
    logits = torch.randn(2, loss.out_channels, 4, 4, requires_grad=True)
    for factor in 1, 3:
        (factor * loss(logits, target, lb.LabelDropout(0.5)(annotated))).backward()
    lb.drop_labels(target, annotated)
assert before or "sympy" not in sys.modules, "sympy"
assert "torch._dynamo" not in sys.modules, "dynamo"
"""
    # elsewhere than in a checkout, whose kernels need not be compiled
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path)


# ---- what is no tensor, or elsewhere ----


@every_loss
@pytest.mark.parametrize("argument", ["logits", "target", "annotated"])
@pytest.mark.parametrize("backend", ["fused", "reference"])
def test_what_is_no_tensor_is_named_with_what_to_do(name, argument, backend):
    loss = create(name, backend=backend)
    arguments = dict(zip(("logits", "target", "annotated"), example(loss), strict=True))
    tensor = arguments[argument]
    for wrong, advice in (
        (tensor.numpy(), r"got numpy.ndarray: use torch.from_numpy"),
        (tensor.tolist(), "got list: use torch.tensor"),
        ((tensor, tensor), "use torch.stack" if tensor.dtype == torch.bool else "of tensors: .*deep supervision"),
        (0.5, "got float$"),
        (None, "got None$"),
    ):
        if argument == "annotated" and wrong is None:
            continue
        with pytest.raises(TypeError, match=rf"\w+: {argument} must be a torch.Tensor.*{advice}"):
            loss(**{**arguments, argument: wrong})


@every_loss
@pytest.mark.parametrize("argument", ["logits", "target", "annotated"])
def test_a_wrong_device_is_blamed_on_the_argument_that_is_on_it(name, argument):
    loss = create(name)
    arguments = dict(zip(("logits", "target", "annotated"), example(loss), strict=True))
    arguments[argument] = arguments[argument].to("meta")
    with pytest.raises(ValueError, match=rf"\w+: {argument} must be on the same device .*, cpu, got meta"):
        loss(**arguments)


@every_loss
@pytest.mark.parametrize("shape", [(0, 4, 4), (2, 0, 4)])
@pytest.mark.parametrize("backend", ["fused", "reference"])
def test_an_empty_batch_gives_zero(name, shape, backend):
    loss = create(name, backend=backend)
    logits = torch.randn(shape[0], loss.out_channels, *shape[1:], requires_grad=True)
    value = loss(logits, torch.zeros(shape, dtype=torch.uint8), torch.ones(shape[0], 4, dtype=torch.bool))
    value.backward()
    assert torch.isfinite(value)
    assert value == 0 or ("dice" in name and shape[0] > 0)  # without pixels a class that counts has a Dice still
    assert logits.grad.shape == logits.shape
