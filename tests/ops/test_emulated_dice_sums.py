"""The CUDA kernels of dice_sums without a GPU: on an emulated device, against the reference and the CPU kernels."""

from dataclasses import replace

import pytest
import torch
from dice_problems import (
    MODES,
    assert_fused_is_exact,
    problem_of,
    problems,
    random_upstream,
    random_weights,
)
from emulation.device import ORDERS
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import FLOATS, INTEGERS, lay_out

from labeldrop_bench import ops


@pytest.mark.parametrize("dtype", FLOATS)
@settings(max_examples=10)
@given(data=st.data())
def test_equals_reference(emulated_cuda, dtype, data):
    problem = data.draw(problems(dtype))
    with emulated_cuda(data.draw(st.sampled_from(ORDERS))):
        assert_fused_is_exact(problem)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("integer", INTEGERS)
def test_layouts_and_target_types(emulated_cuda, mode, integer):
    with emulated_cuda():
        for layout in ("contiguous", "channels_last"):
            problem = problem_of(14, 300, mode, layout=layout, integer=integer, squared=True)
            assert_fused_is_exact(problem)
            assert_fused_is_exact(replace(problem, pixel_weight=random_weights(problem.case.target, 0)))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("num_classes", [2, 33, 130, 300])
def test_one_to_many_lanes_share_a_pixel(emulated_cuda, mode, num_classes):
    """Up to 32 lanes in double; more classes than threads."""
    with emulated_cuda():
        for dtype in (torch.float32, torch.float64):
            problem = problem_of(num_classes, 70, mode, dtype, integer=torch.int16)
            assert_fused_is_exact(replace(problem, pixel_weight=random_weights(problem.case.target, 0)))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("weighted", [False, True])
def test_equals_the_cpu_and_itself(emulated_cuda, mode, weighted):
    """In any order of blocks and threads the sums have the same bits; the CPU's differ by rounding."""
    problem = problem_of(5, 5000, mode, layout="channels_last")
    if weighted:
        problem = replace(problem, pixel_weight=random_weights(problem.case.target, 0))
    upstream = random_upstream(problem)
    results = []
    for order in ORDERS:
        with emulated_cuda(order):
            results.append(problem.run(ops, torch.float32, upstream))
    for found in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found, results[0], strict=True))
    for found, expected in zip(results[0], problem.run(ops, torch.float32, upstream), strict=True):
        # both are within some roundings of float32 of the exact numbers
        torch.testing.assert_close(found, expected, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("squared", [False, True])
def test_weights_of_0_and_1_are_ignored_pixels_and_no_weights(emulated_cuda, mode, squared):
    """To the last bit; a NaN logit under a weight of 0 goes nowhere."""
    plain = problem_of(5, 400, mode, squared=squared)
    ones = torch.ones(plain.case.target.shape)
    without = torch.arange(400).expand(2, -1) % 3 == 0
    ignored = replace(plain, case=replace(plain.case, target=plain.case.target.masked_fill(without, 255)))
    broken = replace(plain.case, logits=plain.case.logits.masked_fill(without.unsqueeze(1), torch.nan))
    zeros = replace(plain, case=broken, pixel_weight=ones.masked_fill(without, 0))
    with emulated_cuda():
        for found, expected in ((replace(plain, pixel_weight=ones), plain), (zeros, ignored)):
            results = [each.run(ops, torch.float32, random_upstream(plain)) for each in (found, expected)]
            assert all(torch.equal(part, wanted) for part, wanted in zip(*results, strict=True))


@pytest.mark.parametrize("mode", MODES)
def test_a_value_that_is_no_label_makes_its_sample_nan(emulated_cuda, mode):
    problem = problem_of(5, 200, mode, integer=torch.int64)
    target = problem.case.target.clone()
    target[1, 3] = 5
    # also in a pixel of weight 0: what the label means is not known
    weight = torch.ones(target.shape)
    weight[1, 3] = 0
    broken = replace(problem, case=replace(problem.case, target=target), pixel_weight=weight)
    with emulated_cuda():
        upstream = random_upstream(problem)
        intersection, prediction, _, cross_entropy, gradient = broken.run(ops, torch.float32, upstream)
    assert intersection[1].isnan().all()
    assert prediction[1].isnan().all()
    assert prediction[0].isfinite().all()
    assert bool(cross_entropy.isnan()) == (mode == "softmax with cross-entropy")
    assert gradient[1, :, 3].isnan().all()
    assert gradient[0].isfinite().all()
    assert gradient[1, :, 4:].isfinite().all()


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 3, 0)])
def test_empty_tensors(emulated_cuda, shape):
    logits = torch.zeros(shape, requires_grad=True)
    table = torch.ones(shape[0], 3, 3, dtype=torch.bool)
    target = torch.zeros(shape[0], *shape[2:], dtype=torch.uint8)
    with emulated_cuda():
        sums = ops.dice_sums(logits, target, table, table, table, table[:, 0] & False, candidates=table)
        (sums.intersection.sum() + sums.prediction.sum() + sums.cross_entropy).backward()
    assert all(each.sum() == 0 for each in sums)
    assert logits.grad.shape == shape


def test_more_classes_than_shared_memory_holds(emulated_cuda):
    """A pixel of 7000 classes for each of four groups of lanes."""
    logits = torch.zeros(1, 7000, 1)
    table = torch.ones(1, 1, 7000, dtype=torch.bool)
    target = torch.zeros(1, 1, dtype=torch.uint8)
    with (
        emulated_cuda(),
        pytest.raises(RuntimeError, match=r"dice_sums: logits: 7000 classes need .* of shared memory"),
    ):
        ops.dice_sums(logits, target, table, table, table, table[:, 0] & False)


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("mode", MODES)
def test_on_a_real_device(dtype, mode):
    for num_classes, layout in ((2, "contiguous"), (14, "channels_last"), (130, "contiguous")):
        problem = problem_of(num_classes, 40_000, mode, dtype, layout, torch.int16, squared=True)
        case = problem.case
        case = replace(case, logits=lay_out(case.logits.cuda(), layout), target=case.target.cuda())
        tables = {name: table.cuda() for name, table in problem.tables.items()}
        problem = replace(problem, case=case, tables=tables)
        assert_fused_is_exact(problem)
        assert_fused_is_exact(replace(problem, pixel_weight=random_weights(problem.case.target.cpu(), 0).cuda()))
