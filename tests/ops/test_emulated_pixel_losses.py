"""The CUDA kernels of the losses that are sums over pixels, on the emulated device."""

from dataclasses import replace
from importlib import import_module
from itertools import product

import pytest
import torch
from emulated_cases import KEY, LOSSES, assert_equals_reference, displaced, make, run
from emulation.device import ORDERS
from strategies import FLOATS, INTEGERS, LAYOUTS, lay_out

from labeldrop_bench import ops, reference
from labeldrop_bench.ops._tables import pack_tables

OPTIONS = [(name, options) for name, (_, _, choices) in LOSSES.items() for options in choices]
CLASSES = (2, 4, 5, 17, 32, 33, 70)  # around vectors, registers and words of bits
# more samples than the emulated device has blocks, and more tiles
SHAPES = ((2, 1), (5, 33), (2, 5, 16), (1, 640), (2, 3, 4, 9))


@pytest.fixture
def device(emulated_cuda, name):
    """The emulated device, with a kernel of this loss."""
    assert hasattr(emulated_cuda.module, name)
    return emulated_cuda


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("name", LOSSES)
def test_fused_equals_reference(device, name, classes, dtype):
    choices = LOSSES[name][2]
    seed = CLASSES.index(classes) * 11 + FLOATS.index(dtype) * 5  # elsewhere each time in the choices below
    for layout in LAYOUTS:
        for shape in SHAPES:
            seed += 1
            reduction = ("mean", "sum", "none")[seed % 3]
            options = choices[seed // 2 % len(choices)]
            case = make(name, classes, shape, seed, dtype, INTEGERS[seed % 4], seed // 3 % 2 == 0, **options)
            case = replace(case, logits=lay_out(case.logits, layout))
            upstream = torch.randn(shape if reduction == "none" else (), dtype=torch.float64)
            assert_equals_reference(device, case, reduction, ORDERS[seed // 3 % 3], upstream)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("classes", [3, 8, 14, 16, 105, 130, 300])
@pytest.mark.parametrize("name", [name for name in LOSSES if name != "set_cross_entropy"])
def test_paths_of_losses_class_by_class(device, name, classes, dtype):
    """Channels-last: rows in registers (8, 16), tiles of four pixels a thread (3, 14) or of one, a thread's words one
    after the other (105, bfloat16) or each a thread's (105, float32; 300); groups of classes that end early.
    """
    for seed, (shape, layout) in enumerate(product(((1, 1024), (2, 3, 43)), LAYOUTS[:2])):
        case = make(name, classes, shape, seed, dtype, INTEGERS[seed], weighted=seed > 1, **LOSSES[name][2][0])
        case = replace(case, logits=lay_out(case.logits, layout))
        for reduction in ("none", "mean"):
            upstream = torch.randn(shape if reduction == "none" else (), dtype=torch.float64)
            assert_equals_reference(device, case, reduction, ORDERS[seed % 3], upstream)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
@pytest.mark.parametrize("name", LOSSES)
def test_an_infinite_upstream_leaves_what_is_inactive_alone(device, name, dtype):
    """0 times infinity would be NaN, and a scaler of gradients could not tell whose it is."""
    for classes, layout in product((4, 14, 40), LAYOUTS[:2]):
        case = make(name, classes, (2, 48), dtype=dtype, **LOSSES[name][2][0])
        case = replace(case, logits=lay_out(case.logits, layout))
        label = torch.where(case.target == case.ignore_index, 0, case.target)
        active = case.active[torch.arange(2).view(2, 1), label] & (case.target != case.ignore_index).unsqueeze(-1)
        hidden = ~active.movedim(-1, 1).repeat(1, LOSSES[name][0], 1)
        with device():
            gradient = run(ops, case, "sum", torch.tensor(float("inf")))[1]
        assert (gradient[hidden] == 0).all()
        assert not gradient.isfinite().all()


@pytest.mark.parametrize("layout", LAYOUTS[:2])
@pytest.mark.parametrize("value", [float("inf"), -float("inf"), float("nan")])
@pytest.mark.parametrize("name", [name for name in LOSSES if name != "set_cross_entropy"])
def test_what_is_not_finite_and_counts_is_seen(device, name, value, layout):
    for classes in (4, 14, 40):
        for options in LOSSES[name][2]:
            case = make(name, classes, (2, 40), **options)
            case = replace(case, active=torch.ones_like(case.active), target=case.target.clamp(min=0))
            logits = case.logits.clone()
            logits[:, 1, 5] = value
            case = replace(case, logits=lay_out(logits, layout))
            with device():
                loss, gradient = run(ops, case, "none")
            assert torch.equal(loss.isnan(), (torch.arange(40) == 5).expand(2, 40))
            assert torch.equal(gradient.isnan().any(1), loss.isnan())


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", LOSSES)
def test_alignment(device, name, dtype):
    """A misaligned access stops the emulated device."""
    for classes in CLASSES:
        case = make(name, classes, (2, 64), 3, dtype, torch.uint8, weighted=True, **LOSSES[name][2][0])
        weights = {**case.options, "pixel_weight": displaced(case.options["pixel_weight"])}
        upstream = torch.randn(case.target.shape)
        for change in (
            {"logits": displaced(case.logits)},
            {"target": displaced(case.target)},
            {"options": weights},
            {"logits": displaced(case.logits.movedim(1, -1).contiguous()).movedim(-1, 1)},
        ):
            assert_equals_reference(device, replace(case, **change), "none", 0, upstream)
        assert_equals_reference(device, case, "none", 0, displaced(upstream))


@pytest.mark.parametrize(("name", "options"), OPTIONS)
def test_bits_do_not_depend_on_the_schedule(device, name, options):
    for classes, layout in ((4, "contiguous"), (4, "channels_last"), (40, "contiguous"), (40, "channels_last")):
        for dtype in (torch.float32, torch.float64):
            case = make(name, classes, (3, 1500), dtype=dtype, weighted=True, **options)
            case = replace(case, logits=lay_out(case.logits, layout))
            results = []
            for order in (0, *ORDERS):
                with device(order):
                    results.append(run(ops, case))
            for loss, gradient in results[1:]:
                assert torch.equal(loss, results[0][0])
                assert torch.equal(gradient, results[0][1])


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS[:2])
@pytest.mark.parametrize(("classes", "shape"), [(3, (2050, 257)), (40, (2050, 40)), (3, (4099, 3))])
@pytest.mark.parametrize("name", LOSSES)
def test_blocks_that_take_several_tiles(device, name, classes, shape, layout):
    """A grid has up to 4096 blocks: more than 2048 samples leave one for each, that has all of its pixels to do."""
    case = make(name, classes, shape, weighted=True, **LOSSES[name][2][-1])
    case = replace(case, logits=lay_out(case.logits, layout))
    assert_equals_reference(device, case, "mean", 2, torch.tensor(1.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("classes", [4, 20, 40])
@pytest.mark.parametrize("name", LOSSES)
def test_a_value_that_is_no_label_gives_nan(device, name, classes, dtype):
    """In every channel of the pixel, of classes that its sample says nothing about as well, and nowhere else."""
    for layout in LAYOUTS:
        case = make(name, classes, (2, 32), dtype=dtype, **LOSSES[name][2][0])
        case.target[1, 7], case.target[0, 3] = -1, case.active.shape[1]
        invalid = torch.zeros(2, 32, dtype=torch.bool)
        invalid[1, 7] = invalid[0, 3] = True
        case = replace(case, logits=lay_out(case.logits, layout))
        with device():
            loss, gradient = run(ops, case, "none")
            assert torch.equal(loss.isnan(), invalid)
            assert torch.equal(gradient.isnan(), invalid.unsqueeze(1).expand_as(gradient))
            loss, gradient = run(ops, case, "mean")
            assert loss.isnan()
            assert torch.equal(gradient.isnan(), invalid.unsqueeze(1).expand_as(gradient))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
@pytest.mark.parametrize("name", LOSSES)
def test_what_counts_for_nothing_is_not_looked_at(device, name, dtype):
    for classes in (4, 20, 40):
        for layout in LAYOUTS:
            case = make(name, classes, (2, 48), dtype=dtype, weighted=True, **LOSSES[name][2][0])
            channels = LOSSES[name][0]
            counted = (case.target != case.ignore_index) & (case.options["pixel_weight"] != 0)
            label = torch.where(counted, case.target, 0)
            active = case.active[torch.arange(2).view(2, 1), label] & counted.unsqueeze(-1)  # [N, S, K]
            hidden = ~active.movedim(-1, 1).repeat(1, channels, 1)
            dirty = torch.where(hidden, torch.tensor([float("nan"), float("inf")], dtype=dtype).repeat(24), case.logits)
            clean = replace(case, logits=lay_out(case.logits, layout))
            with device():
                expected = run(ops, clean)
                loss, gradient = run(ops, replace(case, logits=lay_out(dirty, layout)))
            assert torch.equal(loss, expected[0])
            assert torch.equal(gradient, expected[1])
            assert (gradient[hidden] == 0).all()


@pytest.mark.parametrize("name", LOSSES)
def test_nothing_that_counts(device, name):
    case = make(name, 4, (2, 48), weighted=True, **LOSSES[name][2][0])
    ignored = replace(case, target=torch.full_like(case.target, -100))
    weightless = replace(case, options={**case.options, "pixel_weight": torch.zeros(2, 48)})
    empty = make(name, 4, (0, 48), **LOSSES[name][2][0])
    with device():
        for nothing in (ignored, weightless, empty):
            loss, gradient = run(ops, nothing)
            assert loss == 0
            assert (gradient == 0).all()


@pytest.mark.parametrize("classes", [4, 20, 40])
@pytest.mark.parametrize("layout", LAYOUTS[:2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", LOSSES)
def test_rescaling_leaves_a_gradient_for_an_upstream_of_one(device, name, dtype, layout, classes):
    case = make(name, classes, (2, 48), dtype=dtype, weighted=True, **LOSSES[name][2][0])
    logits = lay_out(case.logits, layout)
    accumulation = torch.float64 if dtype == torch.float64 else torch.float32
    weights = [case.options.get(weight) for weight in ("label_weight", "class_weight", "pixel_weight")]
    weights = [None if weight is None else weight.to(accumulation) for weight in weights]
    divisor = torch.tensor(3.0, dtype=torch.double)
    parameters = {"predictive_variance": [0.0, 10.0, 0.0], "sigmoid_focal": [0.0, -1.0], "label_flip": [0.0, 0.0]}
    inputs = (logits, case.target, pack_tables(name, case.candidates, case.active), *weights, case.options.get("key"))
    arguments = (*inputs, parameters.get(name, []), case.ignore_index)
    with device():
        kept = torch.full_like(logits, 5)
        case.registered.rescale(kept, torch.ones((), dtype=accumulation), divisor, *arguments)
        assert (kept == 5).all()
        written = torch.full_like(logits, 5)
        case.registered.rescale(written, torch.tensor(2.0, dtype=accumulation), divisor, *arguments)
        expected = case.registered.backward(torch.tensor(2.0, dtype=accumulation), divisor, *arguments)
    assert torch.equal(written, expected)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_a_retained_graph_gives_the_same_gradient_again(device, name, factor):
    """The first gradient is written to in place, though hooks of saved tensors have it."""
    case = make(name, 5, (2, 40), **({"key": KEY} if name == "predictive_variance" else {}))
    with device():
        logits = case.logits.detach().requires_grad_()
        value = factor * case(ops, logits)
        gradients = []
        for _ in range(3):
            (gradient,) = torch.autograd.grad(value, logits, retain_graph=True)
            gradients.append(gradient.clone())
            gradient.zero_()  # it is the caller's
    expected = run(reference, replace(case, logits=case.logits.double()), upstream=torch.tensor(factor))[1]
    for gradient in gradients:
        torch.testing.assert_close(gradient.double(), expected, rtol=1e-4, atol=1e-6)  # float32, exp, sums


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [0, 1, 7, 64, 5000])
@pytest.mark.parametrize("factor", [1.0, 3.0, float("inf")])
def test_a_gradient_is_multiplied_in_place(emulated_cuda, size, dtype, factor):
    kernel = import_module("labeldrop_bench.ops.set_cross_entropy")._OPERATOR.kernel
    for place in (lambda tensor: tensor.clone(), displaced):
        values = torch.randn(size, dtype=dtype)
        values[::3] = 0
        scaled = place(values)
        with emulated_cuda():
            kernel.scale_on_device(scaled, torch.tensor(factor))
        assert torch.equal(scaled, torch.where(values == 0, 0, values * factor))


@pytest.mark.parametrize("name", LOSSES)
def test_float32_is_not_read_again_for_another_upstream(device, name, monkeypatch):
    case = make(name, 5, (2, 40), **({"key": KEY} if name == "predictive_variance" else {}))
    expected = run(reference, replace(case, logits=case.logits.double()), upstream=torch.tensor(3.0))[1]
    monkeypatch.setattr(case.registered.kernel, "write_gradient", None)
    with device():
        gradient = run(ops, case, upstream=torch.tensor(3.0))[1]
    torch.testing.assert_close(gradient.double(), expected, rtol=1e-4, atol=1e-6)  # float32, exp, sums
