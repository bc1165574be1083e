"""Sums of soft Dice losses with a weight for each pixel: what counts for nothing, and weights that change nothing."""

import math
from dataclasses import replace

import pytest
import torch
from dice_problems import MODES, Problem, random_tables, random_upstream, random_weights
from strategies import FLOATS, LAYOUTS, Case, lay_out

from labeldrop_bench import LabelSpace, ops, reference

BACKENDS = (ops, reference)


def weighted_problem(mode, layout, dtype, squared=False):
    """Pixels that are ignored, of weight 0, and others."""
    torch.manual_seed(0)
    logits, target = torch.randn(2, 6, 9, 31).to(dtype), torch.randint(0, 6, (2, 9, 31))
    target[:, 2] = -100
    case = Case(
        lay_out(logits, layout), target, torch.ones(2, 6, dtype=torch.bool), LabelSpace.of_classes(6), ignore_index=-100
    )
    return Problem(case, random_tables(case, 0), mode, squared, random_weights(target, 0))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_pixel_of_weight_0_is_an_ignored_one(backend, mode, dtype, layout, bad):
    """To the last bit, and whatever its logits are."""
    problem = weighted_problem(mode, layout, dtype)
    case, without = problem.case, problem.pixel_weight == 0
    broken = lay_out(case.logits.masked_fill(without.unsqueeze(1), bad), layout)
    ignored = replace(problem, case=replace(case, target=case.target.masked_fill(without, -100)))
    broken = replace(problem, case=replace(case, logits=broken))
    upstream = random_upstream(problem)
    results = [each.run(backend, dtype, upstream) for each in (ignored, problem, broken)]
    assert all(part.isfinite().all() for part in results[0])
    for found in results[1:]:
        assert all(torch.equal(part, expected) for part, expected in zip(found, results[0], strict=True))
    assert (results[2][4].movedim(1, -1)[without] == 0).all()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_weights_of_1_are_no_weights(mode, squared, dtype, layout):
    problem = weighted_problem(mode, layout, dtype, squared)
    upstream = random_upstream(problem)
    ones = replace(problem, pixel_weight=torch.ones(problem.case.target.shape))
    found, expected = (each.run(ops, dtype, upstream) for each in (ones, replace(problem, pixel_weight=None)))
    assert all(torch.equal(part, wanted) for part, wanted in zip(found, expected, strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_weight_of_no_pixel(backend):
    """All weights 0: nothing to learn from."""
    problem = weighted_problem("softmax with cross-entropy", "contiguous", torch.float32)
    problem = replace(problem, pixel_weight=torch.zeros_like(problem.pixel_weight))
    assert all((part == 0).all() for part in problem.run(backend, torch.float32, random_upstream(problem)))
