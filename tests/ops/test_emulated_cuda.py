"""The CUDA kernels without a GPU: on an emulated device, against the reference."""

import pytest
import torch
from emulation.device import ORDERS
from hypothesis import given
from hypothesis import strategies as st
from strategies import INTEGERS, cases

from labeldrop_bench import ops, reference


@given(case=cases(), order=st.sampled_from(ORDERS))
def test_drop_labels_equals_reference(emulated_cuda, case, order):
    with emulated_cuda(order):
        dropped = ops.drop_labels(case.target, case.annotated, ignore_index=case.ignore_index)
    assert torch.equal(dropped, reference.drop_labels(case.target, case.annotated, ignore_index=case.ignore_index))


@pytest.mark.parametrize("integer", INTEGERS)
def test_drop_labels_copies_what_is_no_label(emulated_cuda, integer):
    target = torch.tensor([[0, 1, 2, 3, 100, 101, 102]]).to(integer)
    annotated = torch.tensor([[True, False, True]])
    with emulated_cuda():
        dropped = ops.drop_labels(target, annotated)
    assert dropped.tolist() == [[0, 0, 2, 3, 100, 101, 102]]
