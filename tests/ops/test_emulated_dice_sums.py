"""The CUDA kernels of dice_sums without a GPU: on an emulated device, against the reference and the CPU kernels."""

from dataclasses import replace

import pytest
import torch
from dice_problems import (
    MODES,
    assert_fused_is_exact,
    in_runs,
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


def usual(problem, num_classes):
    """As rules mostly have it: every class active and, if it is not merged, counted; one class positive."""
    generator = torch.Generator().manual_seed(num_classes)
    shape = problem.tables["active"].shape
    merged = torch.rand(shape[0], num_classes, generator=generator) < 0.3
    merged[:, 0] = False
    positive = torch.eye(num_classes, dtype=torch.bool).expand(shape) & ~merged.unsqueeze(1)
    positive[..., 0] |= ~positive.any(dim=-1)
    candidates = torch.eye(num_classes, dtype=torch.bool).expand(shape) | (torch.rand(shape, generator=generator) < 0.1)
    every = torch.ones(shape, dtype=torch.bool)
    tables = {"positive": positive, "counted": every & ~merged.unsqueeze(1), "active": every}
    return replace(problem, tables=tables | {"merged": merged, "candidates": candidates})


# more classes than 4, 8 and 16, in registers, each as many as there are; rows of 4, 8, 16 bytes and others
FEW = [2, 3, 4, 5, 8, 9, 16, 17, 31, 32]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("num_classes", FEW)
def test_every_path_of_few_classes(emulated_cuda, num_classes, layout, dtype):
    """264 pixels: several for each thread, whose labels are alike or not; 131: one by one where contiguous."""
    for mode, pixels in (*((mode, 264) for mode in MODES), (MODES[1], 131)):
        problem = usual(problem_of(num_classes, pixels, mode, dtype, layout), num_classes)
        alike = replace(problem, case=in_runs(problem.case, 24))
        weighted = replace(problem, pixel_weight=random_weights(problem.case.target, 0))
        with emulated_cuda():
            for each in (problem, alike, weighted, replace(alike, squared=True)):
                assert_fused_is_exact(each)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("num_classes", [3, 8, 20])
def test_candidates_far_below_the_others(emulated_cuda, num_classes, layout):
    """Their exponentials vanish beside the largest one, or nearly; the loss and its gradient do not."""
    problem = usual(problem_of(num_classes, 264, "softmax with cross-entropy", layout=layout), num_classes)
    for gap in (20.0, 59.0, 61.0, 90.0, 300.0):
        far = torch.arange(264) % 3 == 0
        lowered = problem.case.logits - gap * far * torch.eye(num_classes)[problem.case.target.long() % num_classes].mT
        case = replace(problem.case, logits=lay_out(lowered, layout))
        with emulated_cuda():
            assert_fused_is_exact(replace(problem, case=case))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("mode", MODES)
def test_a_pixel_knows_nothing_of_its_neighbours(emulated_cuda, mode, layout):
    """To the last bit: others' labels, NaN logits, candidates that are far below, in the same thread's pixels."""
    for num_classes in (3, 8, 14, 32):
        problem = usual(problem_of(num_classes, 264, mode, layout=layout), num_classes)
        ignored = problem.case.target == 255
        case = replace(problem.case, target=torch.ones_like(problem.case.target).masked_fill(ignored, 255))
        others = torch.arange(264) % 4 != 1
        target = torch.where(others, problem.case.target, case.target)
        logits = torch.where(others & (torch.arange(264) % 3 == 0), torch.nan, case.logits)
        logits[:, 1, others] -= 100
        changed = replace(case, target=target, logits=lay_out(logits, layout))
        upstream = random_upstream(problem)
        with emulated_cuda():
            found, expected = (
                replace(problem, case=each).run(ops, torch.float32, upstream)[4][..., ~others]
                for each in (case, changed)
            )
        assert torch.equal(found, expected)


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
