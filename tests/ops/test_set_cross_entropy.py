"""Set cross-entropy: the fused operator against the plain one, and the properties that define it."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import FLOATS, INTEGERS, LAYOUTS, Case, annotations, cases, lay_out

from labeldrop_bench import LabelSpace, ops, reference
from labeldrop_bench.ops import _native

RULES = ("standard", "adaptive", "marginal")
CPU = _native._MODULES["cpu"]


def run(backend, case, rule, reduction="mean", upstream=None):
    """Loss and gradient."""
    logits = case.logits.detach().requires_grad_()
    loss = backend.set_cross_entropy(
        logits, case.target, *case.table(rule), ignore_index=case.ignore_index, reduction=reduction
    )
    loss.backward(torch.ones_like(loss) if upstream is None else upstream.to(loss.dtype))
    return loss.detach(), logits.grad


def assert_no_worse_than_eager(case, rule, reduction, upstream=None):
    """Errors against float64 are at most those of the eager float32 composition plus a few roundings.

    A loss is a difference of numbers as large as the logits, each rounded to eps * |z|; the kernel's exp and log add 2
    ulp each. A gradient is the upstream gradient times a difference of two probabilities, each off by eps * |z|
    relatively (also in the float64 reference, which is "exact" only for the others); half types round once more when it
    is stored.
    """
    exact_case = case.with_logits(case.logits.double())
    eager_case = case.with_logits(case.logits.to(_accumulation(case.logits.dtype)))
    fused, eager, exact = (
        run(backend, c, rule, reduction, upstream)
        for backend, c in ((ops, case), (reference, eager_case), (reference, exact_case))
    )
    eps = torch.finfo(_accumulation(case.logits.dtype)).eps
    size = 1 + float(case.logits.double().abs().max())
    pixels = case.counted.sum().item() if reduction == "sum" else 1
    eager_error = float((eager[0].double() - exact[0]).abs().max())
    assert float((fused[0].double() - exact[0]).abs().max()) <= eager_error + 8 * eps * size * max(pixels, 1)

    eager_error = float((eager[1].double() - exact[1]).abs().max())
    pixels = max(case.counted.sum().item(), 1) if reduction == "mean" else 1
    largest = (1 if upstream is None else float(upstream.abs().max())) / pixels
    storage = torch.finfo(case.logits.dtype)
    rounding = storage.eps / 2 * exact[1].abs() + storage.smallest_normal * storage.eps
    allowed = eager_error + 8 * eps * size * largest + rounding
    assert bool(((fused[1].double() - exact[1]).abs() <= allowed).all())


def _accumulation(dtype):
    return torch.float64 if dtype == torch.float64 else torch.float32


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@given(data=st.data())
def test_fused_equals_reference(dtype, reduction, data):
    case = data.draw(cases(dtype))
    rule = data.draw(st.sampled_from(RULES))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    shape = case.target.shape if reduction == "none" else ()
    assert_no_worse_than_eager(case, rule, reduction, torch.randn(shape, generator=generator))


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("integer", INTEGERS)
def test_every_instruction_set_layout_and_target_type(layout, integer):
    for num_classes in (2, 16, 17, 33):  # one and two words of bits; in place and through scratch
        torch.manual_seed(num_classes)
        logits = lay_out(torch.randn(2, num_classes, 5, 131), layout)
        target = torch.randint(0, num_classes, (2, 5, 131)).to(integer)
        annotated = torch.rand(2, num_classes) < 0.6
        annotated[:, 0] = True
        case = Case(logits, target, annotated, LabelSpace.of_classes(num_classes), 100)
        assert_no_worse_than_eager(case, "marginal", "mean")


@pytest.mark.parametrize("num_classes", [130, 512])
def test_many_classes(num_classes):
    torch.manual_seed(0)
    annotated = torch.rand(2, num_classes) < 0.5
    annotated[:, 0] = True
    target = torch.randint(0, num_classes, (2, 300), dtype=torch.int16)
    case = Case(torch.randn(2, num_classes, 300), target, annotated, LabelSpace.of_classes(num_classes), -100)
    for rule in RULES:
        assert_no_worse_than_eager(case, rule, "mean")


@settings(max_examples=15)
@given(cases(torch.float64, max_classes=5), st.sampled_from(RULES))
def test_gradcheck(case, rule):
    case = case.with_logits(case.logits[..., :3].clamp(-20, 20).detach().requires_grad_())
    target = case.target[..., :3]
    for reduction in ("mean", "sum", "none"):
        assert torch.autograd.gradcheck(
            lambda z, reduction=reduction: ops.set_cross_entropy(
                z, target, *case.table(rule), ignore_index=case.ignore_index, reduction=reduction
            ),
            case.logits,
        )


# ---- what the rules mean ----


@given(st.integers(2, 40).map(LabelSpace.of_classes).flatmap(lambda s: cases(torch.float64, spaces=st.just(s))))
def test_rules_agree_when_all_is_annotated(case):
    case = Case(case.logits, case.target, torch.ones_like(case.annotated), case.space, case.ignore_index)
    results = [run(ops, case, rule) for rule in RULES]
    for loss, gradient in results[1:]:
        assert torch.equal(loss, results[0][0])
        assert torch.equal(gradient, results[0][1])
    if case.counted.any():
        target = torch.where(case.counted, case.target.long(), -100)
        torch.testing.assert_close(results[0][0], F.cross_entropy(case.logits, target))


@given(cases())
def test_adaptive_gives_missing_classes_no_gradient(case):
    gradient = run(ops, case, "adaptive")[1]
    active = case.row_of_each_pixel(case.table("adaptive")[1])
    assert (gradient.movedim(1, -1)[~active] == 0).all()


@given(cases(torch.float64), st.sampled_from(RULES))
def test_gradient_sums_to_zero_over_classes(case, rule):
    gradient = run(ops, case, rule, "sum")[1]
    assert gradient.sum(dim=1).abs().max() <= 1e-13


@given(cases(), st.sampled_from(RULES), st.floats(-1e4, 1e4, width=32))
def test_adding_a_constant_to_all_logits_changes_nothing(case, rule, constant):
    """Sums of logits or of log-probabilities, which two public codes use for the marginal loss, would change."""
    shifted = case.with_logits((case.logits.double() + constant).float())
    exact = case.with_logits(shifted.logits.double() - constant)  # what survived the rounding of the sum
    loss, gradient = run(ops, shifted, rule)
    expected_loss, expected_gradient = run(reference, exact, rule)
    tolerance = 1e-5 * (1 + float(case.logits.abs().max()))  # ~ 100 eps: no trace of a constant 1e4 times as large
    torch.testing.assert_close(loss.double(), expected_loss, rtol=0, atol=tolerance)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=0, atol=tolerance)


# ---- symmetries ----


@given(cases(torch.float64), st.sampled_from(RULES), st.randoms(use_true_random=False))
def test_sample_permutation_and_class_permutation(case, rule, random):
    loss, gradient = run(ops, case, rule, "none")
    samples = random.sample(range(len(case.target)), len(case.target))
    permuted = Case(case.logits[samples], case.target[samples], case.annotated[samples], case.space, case.ignore_index)
    loss_permuted, gradient_permuted = run(ops, permuted, rule, "none")
    assert torch.equal(loss_permuted, loss[samples])
    assert torch.equal(gradient_permuted, gradient[samples])

    classes = random.sample(range(case.space.num_classes), case.space.num_classes)
    candidates, active = (table[:, :, classes] for table in case.table(rule))
    loss_permuted = ops.set_cross_entropy(
        case.logits[:, classes], case.target, candidates, active, ignore_index=case.ignore_index, reduction="none"
    )
    torch.testing.assert_close(loss_permuted, loss)


@given(cases(torch.float64), st.sampled_from(RULES))
def test_a_batch_is_the_sum_of_its_samples(case, rule):
    whole, gradient = run(ops, case, rule, "sum")
    per_sample = ("logits", "target", "annotated")
    parts = [
        run(ops, replace(case, **{field: getattr(case, field)[n : n + 1] for field in per_sample}), rule, "sum")
        for n in range(len(case.target))
    ]
    torch.testing.assert_close(whole, sum(loss for loss, _ in parts))
    assert torch.equal(gradient, torch.cat([g for _, g in parts]))


@given(cases(torch.float64), st.sampled_from(RULES))
def test_ignoring_pixels_is_removing_them(case, rule):
    losses = run(ops, case, rule, "none")[0]
    mean, gradient = run(ops, case, rule, "mean")
    assert (losses[~case.counted] == 0).all()
    assert (gradient.movedim(1, -1)[~case.counted] == 0).all()
    expected = losses[case.counted].mean() if case.counted.any() else torch.zeros((), dtype=torch.float64)
    torch.testing.assert_close(mean, expected)


def test_nothing_to_learn_from():
    logits = torch.randn(2, 3, 4, requires_grad=True)
    table = torch.ones(2, 3, 3, dtype=torch.bool)
    for reduction in ("mean", "sum"):
        loss = ops.set_cross_entropy(
            logits, torch.full((2, 4), -100), table, table, ignore_index=-100, reduction=reduction
        )
        (gradient,) = torch.autograd.grad(loss, logits)
        assert loss == 0
        assert (gradient == 0).all()


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 3, 0), (2, 3, 0, 5)])
def test_empty_tensors(shape):
    logits = torch.zeros(shape, requires_grad=True)
    table = torch.ones(shape[0], 3, 3, dtype=torch.bool)
    target = torch.zeros(shape[0], *shape[2:], dtype=torch.uint8)
    loss = ops.set_cross_entropy(logits, target, table, table)
    loss.backward()
    assert loss == 0
    assert logits.grad.shape == shape


@given(st.data())
def test_retained_graph_gives_the_same_gradient_twice(data):
    case = data.draw(cases(spaces=st.just(LabelSpace.of_classes(4))))
    logits = case.logits.detach().requires_grad_()
    loss = ops.set_cross_entropy(logits, case.target, *case.table("adaptive"), ignore_index=case.ignore_index)
    (first,) = torch.autograd.grad(loss, logits, retain_graph=True)
    expected = first.clone()
    (second,) = torch.autograd.grad(2 * loss, logits)
    torch.testing.assert_close(first, expected, rtol=0, atol=0)
    torch.testing.assert_close(second, 2 * expected)


def test_each_backward_pass_gives_a_tensor_of_its_own():
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    table = torch.eye(3, dtype=torch.bool).expand(2, 3, 3)
    loss = ops.set_cross_entropy(logits, torch.randint(3, (2, 4, 4)), table, torch.ones_like(table))
    (first,) = torch.autograd.grad(loss, logits, retain_graph=True)
    expected = first.clone()
    first.zero_()  # as whoever owns it may
    (second,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(second, expected)


@given(annotations(4, 6))
def test_annotations_always_hold_background(annotated):
    assert annotated[:, 0].all()
