"""Label dropout on `annotated`."""

import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import annotations
from torch._dynamo.utils import counters

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


def share(drop, samples=4000, seed=0):
    """How often each of four labels is dropped."""
    return (~drop(torch.ones(samples, 4, dtype=torch.bool), seeded(seed))).double().mean(dim=0).tolist()


# ---- another p, other classes ----


def pickled(drop):
    return pickle.loads(pickle.dumps(drop))  # noqa: S301 - written one call before


@pytest.mark.parametrize("copied", [lambda drop: drop, copy.deepcopy, pickled])
@pytest.mark.parametrize("before", [{"p": 0.0}, {"p": [0, 1, 0, 1]}, {"p": 1.0, "classes": [2, 3]}])
@pytest.mark.parametrize(
    "after", [{"p": 0.8}, {"p": [0, 0.1, 0.2, 0.9]}, {"classes": [1]}, {"classes": None}, {"p": 0.5, "classes": [2]}]
)
def test_what_is_changed_counts_from_the_next_call(before, after, copied):
    drop = LabelDropout(**before)
    share(drop)
    changed = copied(drop)
    for name, value in after.items():
        setattr(changed, name, value)
    fresh = LabelDropout(**{**before, **after})
    assert share(changed) == share(fresh)
    assert repr(changed) == repr(fresh)
    if changed is not drop:
        assert share(drop) == share(LabelDropout(**before))


def test_a_refused_change_changes_nothing():
    drop = LabelDropout(0.5, classes=[1])
    for name, value in (("p", 1.5), ("p", "half"), ("p", [0, 0.5, 2]), ("classes", [0]), ("classes", 3)):
        with pytest.raises((TypeError, ValueError)):
            setattr(drop, name, value)
    with pytest.raises(ValueError, match="below L = 1"):
        drop.p = [0.0]
    assert share(drop) == share(LabelDropout(0.5, classes=[1]))


@pytest.mark.parametrize("dynamic", [None, True])
@pytest.mark.parametrize("options", [{}, {"classes": [1, 3]}])
def test_a_schedule_of_a_compiled_module_needs_no_other_graph(dynamic, options):
    torch.compiler.reset()
    counters.clear()
    drop = LabelDropout(0.0, **options)
    compiled = torch.compile(drop, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for step in range(11):
        drop.p = step / 10
        dropped = ~compiled(torch.ones(4000 + step, 4, dtype=torch.bool))
        # ten standard deviations of 4000 coins are less than 0.08
        assert abs(dropped[:, 1].double().mean().item() - step / 10) < 0.08
    assert counters["stats"]["unique_graphs"] <= 2


# ---- types ----


@pytest.mark.parametrize("cast", ["half", "bfloat16", "double", "float"])
def test_probabilities_stay_what_they_are_in_a_cast_module(cast):
    drop = LabelDropout([0, 0.3, 0.001, 0.9])
    cast_drop = getattr(copy.deepcopy(drop), cast)()
    assert share(cast_drop, 100_000) == share(drop, 100_000)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("backend", ["fused", "reference"])
def test_any_default_dtype(dtype, backend):
    expected = share(LabelDropout(0.3, backend=backend))
    torch.set_default_dtype(dtype)
    try:
        drop = LabelDropout(0.3, backend=backend)
        dropped = drop(torch.ones(4000, 4, dtype=torch.bool), seeded(0))
        drop.p = 0.3
        again = drop(torch.ones(4000, 4, dtype=torch.bool), seeded(0))
    finally:
        torch.set_default_dtype(torch.float32)
    assert (~dropped).double().mean(dim=0).tolist() == expected
    assert torch.equal(dropped, again)


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64-true", "bf16-mixed"])
def test_true_precisions_of_lightning(precision):
    from lightning_fabric import Fabric

    fabric = Fabric(accelerator="cpu", devices=1, precision=precision)
    with fabric.init_module():
        drop = LabelDropout(0.3)
    assert share(fabric.setup_module(drop, move_to_device=False), 100) == share(LabelDropout(0.3), 100)


@pytest.mark.parametrize(
    "p", [np.float32(0.5), np.array(0.5), torch.tensor(0.5), [0, 0.5, 0.5, 0.5], np.array([0, 0.5, 0.5, 0.5])]
)
@pytest.mark.parametrize("classes", [None, np.array([1, 2, 3]), torch.tensor([1, 2, 3]), range(1, 4), {1, 2, 3}])
def test_numbers_lists_arrays_and_tensors(p, classes):
    drop = LabelDropout(p, classes)
    assert share(drop) == share(LabelDropout(0.5))
    assert all(type(number) is float for number in (drop.p if isinstance(drop.p, tuple) else [drop.p]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"p": True}, "p must be a number, or one for each label, got True"),
        ({"p": None}, "p must be a number.* got None"),
        ({"p": "0.5"}, "p must be a number.* got '0.5'"),
        ({"p": [[0.0, 0.5]]}, "p must be a number"),
        ({"p": []}, "p must be a number"),
        ({"classes": 3}, "classes must be a list of label values, or None, got 3"),
        ({"classes": "12"}, "classes must be a list of label values"),
        ({"classes": [1.0]}, r"classes must be an integer, got 1.0 \(float\)"),
        ({"classes": [True, False]}, r"classes must be an integer, got True \(bool\)"),
    ],
)
def test_what_is_no_number_is_named(options, message):
    with pytest.raises(TypeError, match=f"LabelDropout: {message}"):
        LabelDropout(**options)


def test_what_is_no_tensor_is_named():
    annotated = torch.ones(2, 3, dtype=torch.bool)
    for wrong, kind in ((annotated.numpy(), "numpy.ndarray: use torch.from_numpy"), (annotated.tolist(), "list")):
        with pytest.raises(TypeError, match=f"LabelDropout: annotated must be a torch.Tensor, got {kind}"):
            LabelDropout(0.5)(wrong)


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
        ({"p": [0.0, 0.5], "classes": [2]}, r"classes must be label values below L = 2, got \(2,\)"),
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
        (LabelDropout(0.5), torch.ones(2, 3), r"annotated must be a bool tensor \[N, L\] .*got torch.float32"),
        (LabelDropout(0.5), torch.ones(3, dtype=torch.bool), r"got torch.bool with shape \(3,\)"),
        (LabelDropout(0.5), torch.ones(3, 0, dtype=torch.bool), r"at least one label, got torch.bool .*\(3, 0\)"),
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
