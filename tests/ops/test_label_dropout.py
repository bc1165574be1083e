"""Label dropout on the annotations: the kernel against plain PyTorch, bit by bit."""

import pytest
import torch
from emulation.device import ORDERS
from hypothesis import given
from hypothesis import strategies as st
from strategies import annotations

from labeldrop_bench import LabelDropout, ops, reference
from labeldrop_bench.ops import _native
from labeldrop_bench.ops.label_dropout import _OPERATOR
from labeldrop_bench.reference.philox import key_words, philox4x32

KEYS = st.integers(-(2**63), 2**63 - 1)


@st.composite
def arguments(draw):
    """(annotated, probability, key)"""
    samples, labels = draw(st.integers(0, 40)), draw(st.integers(1, 40))
    annotated = draw(annotations(samples, labels)) if samples else torch.ones(0, labels, dtype=torch.bool)
    if draw(st.booleans()):
        annotated = annotated.T.contiguous().T
    probability = draw(st.lists(st.floats(0, 1, width=32), min_size=labels, max_size=labels))
    return annotated, torch.tensor(probability), torch.tensor([draw(KEYS)])


@given(arguments())
def test_fused_equals_reference(case):
    dropped = ops.label_dropout(*case)
    assert dropped.dtype == torch.bool
    assert torch.equal(dropped, reference.label_dropout(*case))


@given(case=arguments(), order=st.sampled_from(ORDERS))
def test_emulated_cuda_equals_reference(emulated_cuda, case, order):
    with emulated_cuda(order):
        dropped = ops.label_dropout(*case)
    assert torch.equal(dropped, reference.label_dropout(*case))


@pytest.mark.cuda
@given(case=arguments())
def test_cuda_equals_reference(case):
    dropped = ops.label_dropout(*(tensor.cuda() for tensor in case))
    assert torch.equal(dropped.cpu(), reference.label_dropout(*case))


@pytest.mark.usefixtures("isa")
def test_every_instruction_set():
    case = (torch.ones(1000, 7, dtype=torch.bool), torch.linspace(0, 1, 7), torch.tensor([-5]))
    assert torch.equal(ops.label_dropout(*case), reference.label_dropout(*case))


def test_the_bound_is_exact():
    """u < p drops and u = p does not, for every u that float32 holds (1 word in 256) and its neighbours."""
    key = torch.tensor([2**40 + 3])
    element = torch.arange(20_000)
    zero = torch.zeros_like(element)
    words = philox4x32(torch.stack([element, zero, zero, zero + 1], dim=-1), key_words(key))[:, 0]
    u = (words.double() * 2.0**-32).float()
    exact = u.double() * 2.0**32 == words
    assert exact.sum() > 20
    annotated = torch.ones(1, len(u), dtype=torch.bool)
    for kept, probability in (
        (True, u),
        (True, u.nextafter(-torch.ones(()))),
        (False, u.nextafter(torch.ones(()) * 2)),
    ):
        for backend in (ops, reference):
            result = backend.label_dropout(annotated, probability.clamp(0, 1), key)[0]
            assert (result[exact] == kept).all()


def test_all_bits_of_the_key_count():
    annotated, half = torch.ones(8, 32, dtype=torch.bool), torch.full((32,), 0.5)
    draws = [ops.label_dropout(annotated, half, torch.tensor([key])) for key in (0, 1, 2**32, -(2**63), -1)]
    for i, draw in enumerate(draws):
        for other in draws[:i]:
            # 256 fair coins differ in 128 +- 8 places: five standard deviations
            assert 88 <= (draw != other).sum() <= 168


def test_opcheck():
    torch.library.opcheck(_OPERATOR, (torch.rand(3, 4) < 0.5, torch.rand(4), torch.tensor([7])))


YES, HALF, KEY = torch.ones(2, 3, dtype=torch.bool), torch.full((3,), 0.5), torch.tensor([1])


@pytest.mark.parametrize(
    ("case", "error", "message"),
    [
        ((YES.float(), HALF, KEY), TypeError, "annotated must be bool, got torch.float32"),
        ((YES, HALF.double(), KEY), TypeError, "probability must be float32, got torch.float64"),
        ((YES, HALF, KEY.int()), TypeError, "key must be int64, got torch.int32"),
        (
            (YES, HALF[:2], KEY),
            ValueError,
            r"annotated must be \[N, L\] with.* and probability \[L\], got \[2, 3\] and \[2\]",
        ),
        ((YES[0], HALF, KEY), ValueError, r"got \[3\] and \[3\]"),
        ((YES, HALF, torch.tensor(1)), ValueError, r"key must have shape \[1\], got \[\]"),
        (
            (YES, HALF, KEY.to("meta")),
            ValueError,
            "key must be on the same device as the other arguments, cpu, got meta",
        ),
    ],
)
def test_bad_arguments_are_named(case, error, message):
    with pytest.raises(error, match=f"label_dropout: .*{message}"):
        ops.label_dropout(*case)


def test_a_missing_kernel_is_an_error_that_says_what_to_do(monkeypatch):
    monkeypatch.setitem(_native._MODULES, "cpu", None)
    with pytest.raises(RuntimeError, match=r"label_dropout: there is no compiled kernel for device 'cpu'.*reference"):
        LabelDropout(0.5)(YES)
    assert LabelDropout(0.5, backend="reference")(YES)[:, 0].all()
