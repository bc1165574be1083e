"""Sums of soft Dice losses: worked examples, the fused operator against the plain one, and hard numbers."""

import math
from dataclasses import replace
from itertools import product

import pytest
import torch
from dice_problems import (
    MODES,
    Problem,
    alike_tables,
    assert_fused_is_exact,
    in_runs,
    problems,
    random_tables,
    random_upstream,
    random_weights,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import FLOATS, INTEGERS, LAYOUTS, Case, lay_out

from labeldrop_bench import LabelSpace, ops, reference
from labeldrop_bench.ops import _native

CPU = _native._MODULES["cpu"]
BACKENDS = (ops, reference)


# ---- worked examples: p = (1/2, 3/10, 1/5) in the first pixel, (1/5, 1/5, 3/5) in the second ----

LOGITS = torch.tensor([[[0.5, 0.2], [0.3, 0.2], [0.2, 0.6]]]).log()
TARGET = torch.tensor([[0, 2]])
EYE = torch.eye(3, dtype=torch.bool).unsqueeze(0)
ALL = torch.ones(1, 3, 3, dtype=torch.bool)
NONE = torch.zeros(1, 3, dtype=torch.bool)


def assert_sums(sums, intersection, prediction, truth, cross_entropy=0.0):
    assert sums.intersection[0].tolist() == pytest.approx(intersection, rel=1e-6)
    assert sums.prediction[0].tolist() == pytest.approx(prediction, rel=1e-6)
    assert sums.truth[0].tolist() == truth
    assert float(sums.cross_entropy) == pytest.approx(cross_entropy, rel=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_by_hand(backend):
    sums = backend.dice_sums(LOGITS, TARGET, EYE, ALL, ALL, NONE)
    assert_sums(sums, [0.5, 0, 0.6], [0.7, 0.5, 0.8], [1, 0, 1])
    sums = backend.dice_sums(LOGITS, TARGET, EYE, ALL, ALL, NONE, squared=True, candidates=EYE)
    cross_entropy = -(math.log(0.5) + math.log(0.6)) / 2
    assert_sums(sums, [0.5, 0, 0.6], [0.29, 0.13, 0.4], [1, 0, 1], cross_entropy)
    sums = backend.dice_sums(LOGITS, torch.tensor([[-100, 2]]), EYE, ALL, ALL, NONE, candidates=EYE)
    assert_sums(sums, [0, 0, 0.6], [0.2, 0.2, 0.6], [0, 0, 1], -math.log(0.6))


@pytest.mark.parametrize("factor", [1, 2**-10, 2**10])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_pixel_weights_by_hand(backend, dtype, factor):
    """Weights 2 and 1/2 in every sum; the cross-entropy is a mean, which a common factor leaves as it is."""
    weight = factor * torch.tensor([[2.0, 0.5]], dtype=dtype)
    cross_entropy = -(2 * math.log(0.5) + 0.5 * math.log(0.6)) / 2.5
    for squared, prediction in ((False, [1.1, 0.7, 0.7]), (True, [0.52, 0.2, 0.26])):
        options = {"squared": squared, "candidates": EYE, "pixel_weight": weight}
        sums = backend.dice_sums(LOGITS, TARGET, EYE, ALL, ALL, NONE, **options)
        scaled = [part / factor for part in sums[:3]]
        assert scaled[0][0].tolist() == pytest.approx([1, 0, 0.3], rel=1e-6)
        assert scaled[1][0].tolist() == pytest.approx(prediction, rel=1e-6)
        assert scaled[2][0].tolist() == pytest.approx([2, 0, 0.5], rel=1e-6)
        assert float(sums.cross_entropy) == pytest.approx(cross_entropy, rel=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_merged_classes_by_hand(backend):
    """Class 1 counts as background; it is not counted itself, whatever the table says."""
    merged = torch.tensor([[False, True, False]])
    sums = backend.dice_sums(LOGITS, TARGET, EYE, ALL, ALL, merged)
    assert_sums(sums, [0.8, 0, 0.6], [1.2, 0, 0.8], [1, 0, 1])
    sums = backend.dice_sums(LOGITS, TARGET, EYE, ALL, ALL, merged, squared=True)
    assert_sums(sums, [0.8, 0, 0.6], [0.64 + 0.16, 0, 0.04 + 0.36], [1, 0, 1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_inactive_classes_by_hand(backend):
    """Class 1 is not active in pixels of label 0: their probabilities are 5/7, 0, 2/7."""
    active = ALL.clone()
    active[0, 0, 1] = False
    sums = backend.dice_sums(LOGITS, TARGET, EYE, ALL, active, NONE)
    assert_sums(sums, [5 / 7, 0, 0.6], [5 / 7 + 0.2, 0.2, 2 / 7 + 0.6], [1, 0, 1])
    sums = backend.dice_sums(LOGITS, TARGET, EYE, active, active, NONE, activation="sigmoid")
    odds = [[0.5, 0.3, 0.2], [0.2, 0.2, 0.6]]
    p = [[o / (1 + o) for o in row] for row in odds]
    assert_sums(sums, [p[0][0], 0, p[1][2]], [p[0][0] + p[1][0], p[1][1], p[0][2] + p[1][2]], [1, 0, 1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_dice_gradient_by_hand(backend):
    """One pixel, two classes, p = (3/4, 1/4), class 0 positive: dI_0/dz = p_0 p_1 (1, -1)."""
    logits = torch.tensor([[[3.0], [1.0]]]).log().requires_grad_()
    table = torch.ones(1, 2, 2, dtype=torch.bool)
    sums = backend.dice_sums(
        logits, torch.tensor([[0]]), table[:, :1] & EYE[:, :1, :2], table[:, :1], table[:, :1], NONE[:, :2]
    )
    (gradient,) = torch.autograd.grad(sums.intersection[0, 0], logits)
    assert gradient.flatten().tolist() == pytest.approx([3 / 16, -3 / 16], rel=1e-6)


# ---- fused against reference ----


@pytest.mark.parametrize("dtype", FLOATS)
@settings(max_examples=40)
@given(data=st.data())
def test_fused_equals_reference(dtype, data):
    assert_fused_is_exact(data.draw(problems(dtype)), data.draw(st.integers(0, 2**31)))


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("integer", INTEGERS)
def test_every_instruction_set_layout_and_target_type(layout, integer):
    for num_classes in (2, 16, 17, 33):  # one and two words of bits; in place and through scratch
        torch.manual_seed(num_classes)
        logits = lay_out(torch.randn(2, num_classes, 5, 131), layout)
        target = torch.randint(0, num_classes, (2, 5, 131)).to(integer)
        annotated = torch.ones(2, num_classes, dtype=torch.bool)
        scattered = Case(logits, target, annotated, LabelSpace.of_classes(num_classes), 100)
        for case, tables, mode in product((scattered, in_runs(scattered, 21)), (random_tables, alike_tables), MODES):
            problem = Problem(case, tables(case, 1), mode, squared=num_classes == 16)
            assert_fused_is_exact(problem)
            assert_fused_is_exact(replace(problem, pixel_weight=random_weights(target, 1)))


@pytest.mark.parametrize("num_classes", [130, 512])
@pytest.mark.parametrize("mode", MODES)
def test_many_classes(num_classes, mode):
    torch.manual_seed(0)
    target = torch.randint(0, num_classes, (2, 300), dtype=torch.int16)
    annotated = torch.ones(2, num_classes, dtype=torch.bool)
    case = Case(torch.randn(2, num_classes, 300), target, annotated, LabelSpace.of_classes(num_classes), -100)
    assert_fused_is_exact(Problem(case, random_tables(case, 0), mode, squared=False))


@settings(max_examples=15)
@given(problems(torch.float64, max_classes=5))
def test_gradcheck(problem):
    case = problem.case
    logits = case.logits[..., :3].clamp(-20, 20).detach().requires_grad_()
    weight = problem.pixel_weight if problem.pixel_weight is None else problem.pixel_weight[..., :3].double()
    problem = replace(problem, case=replace(case, target=case.target[..., :3]), pixel_weight=weight)

    def differentiable(z):
        sums = problem.sums(ops, z)
        return sums.intersection, sums.prediction, sums.cross_entropy

    assert torch.autograd.gradcheck(differentiable, logits)


@given(problems(torch.float32))
def test_cross_entropy_is_that_of_set_cross_entropy(problem):
    problem = replace(problem, mode="softmax with cross-entropy")
    case, tables = problem.case, problem.tables
    arguments = case.target, tables["candidates"], tables["active"]
    options = {"pixel_weight": problem.pixel_weight, "ignore_index": case.ignore_index}
    expected = ops.set_cross_entropy(case.logits, *arguments, **options)
    # the same losses of pixels, added up in another order
    torch.testing.assert_close(problem.sums(ops, case.logits).cross_entropy, expected, rtol=3e-7, atol=0)


@given(problems(torch.float32))
def test_truth_is_an_exact_count(problem):
    """An exact integer, also where the class is not active; with weights a sum in float64."""
    case, tables = problem.case, problem.tables
    counts = (tables["positive"] & tables["counted"]) & ~(tables["merged"] & _not_background(tables)).unsqueeze(1)
    positive = case.row_of_each_pixel(counts) & case.counted.unsqueeze(-1)
    without = replace(problem, pixel_weight=None).sums(ops, case.logits).truth
    assert torch.equal(without.long(), positive.flatten(1, -2).sum(dim=1))
    weight = random_weights(case.target, 0)
    expected = (positive * weight.double().unsqueeze(-1)).flatten(1, -2).sum(dim=1)
    with_weights = replace(problem, pixel_weight=weight).sums(ops, case.logits).truth
    torch.testing.assert_close(with_weights, expected.float(), rtol=1e-6, atol=0)


def _not_background(tables):
    return torch.arange(tables["merged"].shape[1]) > 0


@given(problems(torch.float32))
def test_samples_do_not_touch_each_other(problem):
    whole = problem.sums(ops, problem.case.logits)
    case = problem.case
    for n in range(len(case.target)):
        one = slice(n, n + 1)
        alone = replace(
            problem,
            case=replace(case, logits=case.logits[one], target=case.target[one]),
            tables={name: table[one] for name, table in problem.tables.items()},
            pixel_weight=None if problem.pixel_weight is None else problem.pixel_weight[one],
        ).sums(ops, case.logits[one])
        # the number of parts that a sample's sum has depends on the batch
        for part, expected in zip(alone[:3], whole[:3], strict=True):
            torch.testing.assert_close(part, expected[one], rtol=1e-6, atol=0)


# ---- what is not looked at, and numbers that are hard ----


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_inactive_or_ignored_never_leaks(bad, mode, backend):
    torch.manual_seed(0)
    space = LabelSpace.of_classes(6)
    logits, target = torch.randn(2, 6, 200), torch.randint(0, 6, (2, 200))
    target[:, 7:20] = -100
    case = Case(logits, target, torch.ones(2, 6, dtype=torch.bool), space, -100)
    problem = Problem(case, random_tables(case, 0), mode, squared=True)
    unseen = ~(case.row_of_each_pixel(problem.tables["active"]) & case.counted.unsqueeze(-1)).movedim(-1, 1)
    assert unseen.any()
    upstream = random_upstream(problem)
    expected = problem.run(backend, torch.float32, upstream)
    broken = replace(problem, case=replace(case, logits=logits.masked_fill(unseen, bad)))
    found = broken.run(backend, torch.float32, upstream)
    for result, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(result, wanted, rtol=1e-6, atol=1e-7)
    assert (found[4][unseen] == 0).all()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("upstream", [math.nan, math.inf])
def test_gradients_that_are_not_numbers_stay_with_active_classes(mode, upstream):
    torch.manual_seed(0)
    target = torch.randint(0, 4, (1, 50))
    target[:, ::7] = -100
    case = Case(torch.randn(1, 4, 50), target, torch.ones(1, 4, dtype=torch.bool), LabelSpace.of_classes(4), -100)
    problem = Problem(case, random_tables(case, 3), mode, squared=False)
    gradient = problem.run(ops, torch.float32, [torch.tensor(upstream)] * 3)[4]
    unseen = ~(case.row_of_each_pixel(problem.tables["active"]) & case.counted.unsqueeze(-1)).movedim(-1, 1)
    assert (gradient[unseen] == 0).all()
    assert not gradient.isfinite().all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_a_nan_of_an_active_class_is_not_hidden(backend, dtype):
    for candidates in (None, EYE):
        logits = LOGITS.to(dtype).clone()
        logits[0, 1, 0] = math.nan
        sums = backend.dice_sums(logits, TARGET, EYE, ALL, ALL, NONE, candidates=candidates)
        assert sums.intersection[0, 0].isnan()
        assert sums.prediction.isnan().all()
        assert sums.truth.tolist() == [[1, 0, 1]]
        assert candidates is None or sums.cross_entropy.isnan()
    sums = backend.dice_sums(logits, TARGET, EYE, ALL, ALL, NONE, activation="sigmoid")
    assert sums.prediction.isnan().tolist() == [[False, True, False]]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("candidates", [None, EYE])
def test_logits_that_are_far_apart(backend, candidates):
    far = torch.tensor([[[1e4, -math.inf], [-1e4, 3e38], [0.0, -3e38]]])
    sums = backend.dice_sums(far, TARGET, EYE, ALL, ALL, NONE)
    assert_sums(sums, [1, 0, 0], [1, 1, 0], [1, 0, 1])
    nothing = torch.full((1, 3, 2), -math.inf)
    sums = backend.dice_sums(nothing, TARGET, EYE, ALL, ALL, NONE, candidates=candidates)
    assert sums.prediction.isnan().all()  # as torch's softmax has it
    sums = backend.dice_sums(far, TARGET, EYE, ALL, ALL, NONE, activation="sigmoid")
    assert_sums(sums, [1, 0, 0], [1, 1, 0.5], [1, 0, 1])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mode", MODES)
def test_nothing_to_learn_from(backend, mode):
    case = Case(
        torch.randn(2, 3, 40), torch.full((2, 40), -100), torch.ones(2, 3).bool(), LabelSpace.of_classes(3), -100
    )
    problem = Problem(case, random_tables(case, 0), mode, squared=True)
    for result in problem.run(backend, torch.float32, random_upstream(problem)):
        assert (result == 0).all()
    # pixels that count, and no active class
    tables = {**problem.tables, "active": torch.zeros(2, 3, 3).bool()}
    problem = Problem(replace(case, target=torch.zeros(2, 40).long()), tables, "softmax", squared=False)
    results = problem.run(backend, torch.float32, random_upstream(problem))
    for result in (*results[:2], results[4]):
        assert (result == 0).all()


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 3, 0), (2, 3, 0, 5)])
@pytest.mark.parametrize("backend", BACKENDS)
def test_empty_tensors(shape, backend):
    logits = torch.zeros(shape, requires_grad=True)
    table = torch.ones(shape[0], 3, 3, dtype=torch.bool)
    target = torch.zeros(shape[0], *shape[2:], dtype=torch.uint8)
    merged = torch.zeros(shape[0], 3, dtype=torch.bool)
    sums = backend.dice_sums(logits, target, table, table, table, merged, candidates=table)
    (sums.intersection.sum() + sums.prediction.sum() + sums.cross_entropy).backward()
    assert all(each.sum() == 0 for each in sums)
    assert sums.truth.shape == shape[:2]
    assert logits.grad.shape == shape


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_the_number_of_threads_changes_no_bit(mode, weighted, layout):
    torch.manual_seed(0)
    logits = lay_out(torch.randn(3, 14, 50, 61), layout)
    annotated = torch.ones(3, 14, dtype=torch.bool)
    case = Case(logits, torch.randint(0, 14, (3, 50, 61)), annotated, LabelSpace.of_classes(14), -100)
    weight = random_weights(case.target, 0) if weighted else None
    problem = Problem(case, random_tables(case, 0), mode, squared=False, pixel_weight=weight)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 1, 2, 3, 5):
            torch.set_num_threads(count)
            results.append(problem.run(ops, torch.float32, random_upstream(problem)))
    finally:
        torch.set_num_threads(threads)
    for found in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found, results[0], strict=True))


def test_many_pixels_keep_their_digits():
    """4 M equal pixels: adding floats one by one would stop growing at 2^24 / 3, and be off by percents before."""
    pixels = 1 << 22
    logits = torch.log(torch.tensor([0.7, 0.3])).view(1, 2, 1).expand(1, 2, pixels)
    table = torch.ones(1, 1, 2, dtype=torch.bool)
    target = torch.zeros(1, pixels, dtype=torch.uint8)
    sums = ops.dice_sums(logits, target, table, table, table, NONE[:, :2])
    assert sums.prediction[0].tolist() == pytest.approx([0.7 * pixels, 0.3 * pixels], rel=1e-6)
    assert sums.truth[0].tolist() == [pixels, pixels]


@pytest.mark.parametrize("pixels", [0, 40])
def test_the_kernel_divides_by_no_number_of_classes(pixels):
    """The operator refuses tables without classes; whoever calls the kernel without any gets nothing, and no crash."""
    target = torch.zeros(1, 40, dtype=torch.uint8)
    sums, label_weight = torch.zeros(2, dtype=torch.double), torch.zeros(1, 1, dtype=torch.double)
    arguments = dict(
        logits=0,
        logits_type=0,
        channels_last=False,
        target=target.data_ptr(),
        target_type=0,
        tables=0,
        merged=0,
        pixel_weight=0,
        samples=1,
        channels=0,
        pixels=pixels,
        labels=1,
        ignore_index=-100,
        sigmoid=False,
        squared=False,
        with_cross_entropy=False,
    )
    pointers = {"intersection": sums.data_ptr(), "prediction": sums.data_ptr(), "cross_entropy": sums.data_ptr()}
    assert CPU.dice_sums(**arguments, **pointers, label_weight=label_weight.data_ptr(), threads=1) == -1
    assert label_weight.item() == pixels
