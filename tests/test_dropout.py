"""Label dropout on `annotated`."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import annotations

from labeldrop_bench import LabelDropout


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@given(annotations(5, 6), st.floats(0, 1), st.integers(0, 2**31))
def test_only_drops_and_never_background(annotated, p, seed):
    dropped = LabelDropout(p)(annotated, seeded(seed))
    assert not (dropped & ~annotated).any()
    assert dropped[:, 0].all()
    assert torch.equal(dropped, LabelDropout(p)(annotated, seeded(seed)))


@given(annotations(5, 6), st.integers(0, 2**31))
def test_the_ends_of_the_range(annotated, seed):
    assert torch.equal(LabelDropout(0.0)(annotated, seeded(seed)), annotated)
    assert not LabelDropout(1.0)(annotated, seeded(seed))[:, 1:].any()


@given(annotations(5, 6), st.sets(st.integers(1, 5)), st.integers(0, 2**31))
def test_only_the_chosen_labels_drop(annotated, classes, seed):
    dropped = LabelDropout(1.0, classes=sorted(classes))(annotated, seeded(seed))
    for label in range(6):
        assert torch.equal(dropped[:, label], annotated[:, label] & (label not in classes))


@given(annotations(5, 6), st.floats(0, 1), st.integers(0, 2**31))
def test_backends_draw_the_same(annotated, p, seed):
    fused, plain = (LabelDropout(p, backend=backend)(annotated, seeded(seed)) for backend in ("fused", "reference"))
    assert torch.equal(fused, plain)


def test_compiles_into_one_graph():
    torch.compiler.reset()
    drop = LabelDropout([0.0, 0.0, 0.5, 1.0])
    annotated = torch.ones(2000, 4, dtype=torch.bool)
    compiled = torch.compile(drop, fullgraph=True)
    draws = [compiled(annotated) for _ in range(2)]
    for dropped in draws:
        assert dropped[:, :2].all()
        assert not dropped[:, 3].any()
        assert 0.4 < dropped[:, 2].double().mean() < 0.6  # 2000 fair coins: nine standard deviations
    assert not torch.equal(*draws)


def test_eval_mode_is_the_identity():
    annotated = torch.ones(3, 4, dtype=torch.bool)
    assert torch.equal(LabelDropout(1.0).eval()(annotated), annotated)


def test_rate_of_each_label():
    """Binomial counts within five standard deviations: a false alarm once in 10^6; a rate off by 1 % is seen."""
    n = 200_000
    p = [0.0, 0.05, 0.5, 0.9]
    dropped = ~LabelDropout(p)(torch.ones(n, 4, dtype=torch.bool), seeded(0))
    for label, rate in enumerate(p):
        deviation = (rate * (1 - rate) / n) ** 0.5
        assert abs(dropped[:, label].double().mean().item() - rate) <= 5 * deviation


def test_labels_and_samples_are_independent():
    """Correlation of independent draws is 0 with standard deviation 1 / sqrt(n)."""
    n = 100_000
    dropped = (~LabelDropout(0.3)(torch.ones(n, 4, dtype=torch.bool), seeded(1)))[:, 1:].double()
    between_labels = torch.corrcoef(dropped.T)
    between_neighbours = torch.corrcoef(torch.stack([dropped[1:, 0], dropped[:-1, 0]]))
    for correlation in (between_labels[0, 1], between_labels[0, 2], between_labels[1, 2], between_neighbours[0, 1]):
        assert abs(float(correlation)) <= 5 / n**0.5


def test_default_generator_follows_the_seed():
    annotated = torch.ones(50, 4, dtype=torch.bool)
    draws = []
    for _ in range(2):
        torch.manual_seed(3)
        draws.append(LabelDropout(0.5)(annotated))
    assert torch.equal(*draws)
    assert not torch.equal(draws[0], LabelDropout(0.5)(annotated))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"p": 1.5}, r"p must lie in \[0, 1\], got 1.5"),
        ({"p": -0.1}, r"p must lie in \[0, 1\], got -0.1"),
        ({"p": float("nan")}, r"p must lie in \[0, 1\], got nan"),
        ({"p": [0.0, 2.0]}, r"p must lie in \[0, 1\]"),
        ({"p": [0.5, 0.5]}, r"p\[0\] is background's and must be 0"),
        ({"p": 0.5, "classes": [0, 1]}, "background never drops: got"),
        ({"backend": "fast"}, r"backend must be one of \['fused', 'reference'\], got 'fast'"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        LabelDropout(**options)


@pytest.mark.parametrize(
    ("drop", "annotated", "message"),
    [
        (LabelDropout(0.5), torch.ones(2, 3), r"annotated must be a bool tensor \[N, L\], got torch.float32"),
        (LabelDropout(0.5), torch.ones(3, dtype=torch.bool), r"got torch.bool with shape \(3,\)"),
        (LabelDropout([0.0, 0.5]), torch.ones(2, 3, dtype=torch.bool), "one value for each of the 3 labels, got 2"),
        (LabelDropout(0.5, classes=[3]), torch.ones(2, 3, dtype=torch.bool), "label values below L = 3, got"),
    ],
)
def test_bad_annotations_are_named(drop, annotated, message):
    with pytest.raises(ValueError, match=message):
        drop(annotated)


@pytest.mark.cuda
def test_no_synchronisation_on_cuda():
    drop = LabelDropout([0.0, 0.5, 0.5], classes=[2])
    annotated = torch.ones(1000, 3, dtype=torch.bool, device="cuda")
    drop(annotated)
    torch.cuda.set_sync_debug_mode("error")
    try:
        dropped = drop(annotated)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert dropped[:, :2].all()
    assert 0.4 < dropped[:, 2].double().mean().item() < 0.6
