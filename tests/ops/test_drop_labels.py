"""The fused rewrite of the target."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import INTEGERS, annotations, cases

import labeldrop_bench as lb
from labeldrop_bench import ops, reference
from labeldrop_bench.ops.drop_labels import _OPERATOR


@given(cases())
def test_fused_equals_reference(case):
    for target in (case.target, case.target.unsqueeze(1), case.target.movedim(0, -1).contiguous().movedim(-1, 0)):
        dropped = ops.drop_labels(target, case.annotated, ignore_index=case.ignore_index)
        assert dropped.dtype == target.dtype
        assert torch.equal(dropped, reference.drop_labels(target, case.annotated, ignore_index=case.ignore_index))


@given(cases(), st.sampled_from(["standard", "adaptive", "marginal"]), st.data())
def test_the_loss_needs_no_rewritten_target(case, rule, data):
    """The central one: dropping labels in `annotated` is dropping them in the target as well."""
    dropped = case.annotated & data.draw(annotations(*case.annotated.shape))
    table = lb.rules.RULES[rule](dropped, *lb.rules.membership(case.space))
    rewritten = lb.drop_labels(case.target, dropped, ignore_index=case.ignore_index)
    results = []
    for target in (case.target, rewritten):
        logits = case.logits.detach().requires_grad_()
        loss = ops.set_cross_entropy(logits, target, *table, ignore_index=case.ignore_index)
        loss.backward()
        results.append((loss.detach(), logits.grad))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("integer", INTEGERS)
@pytest.mark.parametrize("num_labels", [2, 32, 33, 120])
def test_many_labels_and_every_instruction_set(integer, num_labels):
    torch.manual_seed(0)
    target = torch.randint(0, num_labels, (3, 70, 71)).to(integer)
    target[torch.rand(target.shape) < 0.1] = 125
    annotated = torch.rand(3, num_labels) < 0.5
    expected = reference.drop_labels(target, annotated, ignore_index=125)
    assert torch.equal(ops.drop_labels(target, annotated, ignore_index=125), expected)


def test_opcheck():
    torch.library.opcheck(_OPERATOR, (torch.randint(0, 3, (2, 4, 5)), torch.rand(2, 3) < 0.5, -100))


def test_the_argument_is_left_alone():
    target = torch.ones(1, 4, dtype=torch.uint8)
    dropped = ops.drop_labels(target, torch.tensor([[True, False]]))
    assert (target == 1).all()
    assert (dropped == 0).all()


@pytest.mark.parametrize(
    ("target", "annotated", "error", "message"),
    [
        (torch.zeros(2, 3), torch.ones(2, 2, dtype=torch.bool), TypeError, "target must be one of.*float32"),
        (torch.zeros(2, 3, dtype=torch.uint8), torch.ones(2, 2), TypeError, "annotated must be bool"),
        (
            torch.zeros(2, 3, dtype=torch.uint8),
            torch.ones(3, 2, dtype=torch.bool),
            ValueError,
            r"got \[2, 3\] and \[3, 2\]",
        ),
        (torch.tensor([[0, 1], [1, 7]]), torch.ones(2, 2, dtype=torch.bool), ValueError, r"got 7 at position \[1, 1\]"),
        (
            torch.tensor([[0, 1], [-1, 7]]),
            torch.ones(2, 2, dtype=torch.bool),
            ValueError,
            r"got -1 at position \[1, 0\]",
        ),
    ],
)
def test_bad_arguments_are_named(target, annotated, error, message):
    with pytest.raises(error, match=f"drop_labels: .*{message}"):
        ops.drop_labels(target, annotated)


@pytest.mark.cuda
@given(case=cases())
def test_cuda_equals_reference(case):
    target, annotated = case.target.cuda(), case.annotated.cuda()
    dropped = ops.drop_labels(target, annotated, ignore_index=case.ignore_index)
    assert torch.equal(
        dropped.cpu(), reference.drop_labels(case.target, case.annotated, ignore_index=case.ignore_index)
    )
