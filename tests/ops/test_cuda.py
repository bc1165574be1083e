"""What only a device can show: streams, synchronisation, graphs, memory. Values are compared by the contract tests."""

import pytest
import torch
from torch.utils.checkpoint import checkpoint

import labeldrop_bench as lb

pytestmark = pytest.mark.cuda

NAMES = (*lb.losses.names(), "marginal_ce+marginal_dice")


def example(loss, dtype=torch.float32, size=32, samples=2):
    """logits, target, annotated on the device."""
    torch.manual_seed(0)
    logits = torch.randn(samples, loss.out_channels, size, size).to("cuda", dtype).requires_grad_()
    target = torch.randint(0, 4, (samples, size, size), dtype=torch.uint8).cuda()
    annotated = torch.tensor([[True, True, True, False]] * samples).cuda()
    return logits, target, annotated


def create(name, **options):
    return lb.losses.create(name, num_classes=4, **options).cuda()


@pytest.mark.parametrize("name", NAMES)
def test_the_host_never_waits(name):
    loss = create(name)
    drop = lb.LabelDropout(0.5).cuda()
    logits, target, annotated = example(loss)
    drop(annotated)  # its probabilities reach the device once
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss(logits, target, drop(annotated)).backward()
        (3 * loss(logits, target, annotated)).backward()
        lb.drop_labels(target, annotated)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", NAMES)
def test_a_step_can_be_captured_in_a_graph(name):
    if name == "predictive_variance":
        pytest.skip("every replay draws new noise, so there is no value to compare with")
    loss = create(name)
    logits, target, annotated = example(loss)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            logits.grad = None
            loss(logits, target, annotated).backward()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    logits.grad = None
    with torch.cuda.graph(graph):
        value = loss(logits, target, annotated)
        value.backward()
    with torch.no_grad():
        logits.copy_(torch.randn_like(logits))
    graph.replay()
    again = logits.detach().clone().requires_grad_()
    expected = loss(again, target, annotated)
    expected.backward()
    assert torch.equal(value, expected)
    assert torch.equal(logits.grad, again.grad)


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_that_stays_on_the_cpu(name):
    """Its label space reaches the device once, from whatever stream is the first to need it."""
    loss, moved = lb.losses.create(name, num_classes=4), create(name)
    logits, target, annotated = example(moved)
    torch.manual_seed(1)
    expected = moved(logits, target, annotated)
    torch.cuda.synchronize()
    values = []
    for _ in range(3):
        with torch.cuda.stream(torch.cuda.Stream()):
            torch.manual_seed(1)
            values.append(loss(logits, target, annotated))
    torch.cuda.synchronize()
    assert all(torch.equal(value, expected) for value in values)


@pytest.mark.parametrize("name", NAMES)
def test_another_stream(name):
    loss = create(name)
    logits, target, annotated = example(loss)
    torch.manual_seed(1)
    expected = loss(logits, target, annotated)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(10_000_000)
        torch.manual_seed(1)
        value = loss(logits, target, annotated)
    stream.synchronize()
    assert torch.equal(value, expected)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_same_bits_every_time(name, dtype):
    loss = create(name)
    results = []
    for _ in range(3):
        logits, target, annotated = example(loss, dtype, size=200)
        torch.manual_seed(1)
        value = loss(logits, target, annotated)
        value.backward()
        results.append((value.detach(), logits.grad))
    for value, gradient in results[1:]:
        assert torch.equal(value, results[0][0])
        assert torch.equal(gradient, results[0][1])


@pytest.mark.parametrize("name", NAMES)
def test_a_value_that_is_no_label_gives_nan_or_its_name(name):
    logits, target, annotated = example(create(name))
    target[1, 3, 5] = 77
    value = create(name)(logits, target, annotated)
    assert value.isnan()
    with pytest.raises(ValueError, match=r"got 77 at position \[1, 3, 5\]"):
        create(name, check_target=True)(logits, target, annotated)
    torch.cuda.synchronize()  # the context is as good as before
    assert create(name)(logits, torch.zeros_like(target), annotated).isfinite()


@pytest.mark.parametrize("factor", [1.0, 0.5, 65536.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["marginal_ce", "smile", "label_flip"])
def test_upstream_gradients_that_only_the_device_knows(name, dtype, factor):
    """Twice through one graph: each time a gradient of one's own."""
    loss = create(name)
    logits, target, annotated = example(loss, dtype)
    value = loss(logits, target, annotated)
    (first,) = torch.autograd.grad(factor * value, logits, retain_graph=True)
    kept = first.clone()
    (second,) = torch.autograd.grad(2 * value, logits)
    exact = logits.detach().double().requires_grad_()
    lb.losses.create(name, num_classes=4, backend="reference").cuda()(exact, target, annotated).backward()
    assert torch.equal(first, kept)
    # half an ulp of the storage, and float32's own 1e-5; what float16 cannot hold is off by its smallest step
    rtol, atol = torch.finfo(dtype).eps + 1e-5, 1e-7
    torch.testing.assert_close(first.double(), factor * exact.grad, rtol=rtol, atol=atol)
    torch.testing.assert_close(second.double(), 2 * exact.grad, rtol=rtol, atol=atol)


@pytest.mark.parametrize("name", ["marginal_ce", "smile", "label_flip", "predictive_variance", "marginal_dice"])
def test_one_buffer_of_the_logits_size_is_all_the_memory(name):
    loss = create(name)
    logits, target, annotated = example(loss, size=1024)
    loss(logits, target, annotated).backward()
    logits.grad = None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    loss(logits, target, annotated).backward()
    extra = torch.cuda.max_memory_allocated() - before
    # the gradient; scratch for partial sums and tables is below 1 MiB
    assert extra <= logits.numel() * logits.element_size() + 2**20


@pytest.mark.parametrize("options", [{}, {"classes": [1, 3]}])
def test_a_captured_graph_sees_another_probability(options):
    drop = lb.LabelDropout(0.0, **options)
    annotated = torch.ones(4000, 4, dtype=torch.bool, device="cuda")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        drop(annotated)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        dropped = drop(annotated)
    for p in (0.0, 0.3, 1.0):
        drop.p = p
        graph.replay()
        # ten standard deviations of 4000 coins are less than 0.08
        assert abs((~dropped[:, 1]).double().mean().item() - p) < 0.08


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_checkpointing_and_retained_graphs(name, factor):
    """The gradient of the forward pass is rescaled in place, and saved."""
    if name == "predictive_variance":
        pytest.skip("draws new noise")
    loss = create(name)
    logits, target, annotated = example(loss)
    value = factor * loss(logits, target, annotated)
    (expected,) = torch.autograd.grad(value, logits, retain_graph=True)
    expected = expected.clone()
    again = torch.autograd.grad(value, logits)[0]
    torch.testing.assert_close(again, expected, rtol=1e-5, atol=1e-8)
    checkpointed = factor * checkpoint(lambda z: loss(z, target, annotated), logits, use_reentrant=False)
    torch.testing.assert_close(torch.autograd.grad(checkpointed, logits)[0], expected, rtol=1e-5, atol=1e-8)
