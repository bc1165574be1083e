"""Losses and label dropout as parts of a network: what is done to all of its tensors, and with its outputs, at once."""

import copy
import io
import pickle

import pytest
import torch
from every_loss import create, every_loss, example, value_and_gradient
from torch import nn
from torch.optim.swa_utils import AveragedModel

import labeldrop_bench as lb


class Network(nn.Module):
    def __init__(self, name):
        super().__init__()
        self.loss = create(name)
        self.weighted = lb.CrossEntropy(3, class_weights=[0.1, 0.2, 0.3])
        self.dropout = lb.LabelDropout(0.3)
        self.layer = nn.Conv2d(1, self.loss.out_channels, 1)


def constants(module):
    """Every tensor that the parts keep, and p as `annotated` meets it."""
    parts = [part for part in module.modules() if isinstance(part, (lb.losses.PartialLabelLoss, lb.LabelDropout))]
    return {
        f"{place}.{name}": value
        for place, part in enumerate(parts)
        for name, value in vars(part).items()
        if isinstance(value, torch.Tensor)
    }


def on_meta(name):
    with torch.device("meta"):
        return Network(name).to_empty(device="cpu")


def emptied(name):
    network = Network(name)
    network.to_empty(device="cpu")
    return network


def averaged(name):
    network = Network(name)
    average = AveragedModel(network, use_buffers=True)
    for _ in range(4):
        average.update_parameters(network)
    return average.module


def in_inference(name):
    with torch.inference_mode():
        made = Network(name)
    made.layer = Network(name).layer
    return made


def stored(name):
    """By torch.save, as trainers do that keep whole modules."""
    file = io.BytesIO()
    torch.save(Network(name), file)
    file.seek(0)
    return torch.load(file, weights_only=False)


WAYS = {
    "meta": on_meta,
    "to_empty": emptied,
    "to meta and back": lambda name: Network(name).to("meta").to_empty(device="cpu"),
    "half": lambda name: Network(name).half().float(),
    "average": averaged,
    "inference mode": in_inference,
    "deepcopy": lambda name: copy.deepcopy(Network(name)),
    "pickle": lambda name: pickle.loads(pickle.dumps(Network(name))),  # noqa: S301 - ours
    "torch.save": stored,
    "share_memory": lambda name: Network(name).share_memory(),
}


@every_loss
@pytest.mark.parametrize("way", WAYS)
def test_what_a_loss_keeps_survives_what_is_done_to_the_network(name, way):
    """Tables of labels, class weights and probabilities are in no checkpoint that could bring them back."""
    expected, network = Network(name), WAYS[way](name)
    kept = constants(network)
    assert kept.keys() == constants(expected).keys()
    for key, value in constants(expected).items():
        torch.testing.assert_close(kept[key], value, rtol=0, atol=0)
    logits, target, annotated = example(network.loss)
    logits = logits.double()  # weights of this type are taken as they are
    found, wanted = (
        value_and_gradient(lambda z, loss=each.loss: loss(z, target, annotated), logits) for each in (network, expected)
    )
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    weighted = torch.randn(1, 3, 2, dtype=torch.float64, requires_grad=True)
    network.weighted(weighted, torch.tensor([[0, 2]])).backward()


def test_a_network_has_no_buffers_of_its_losses():
    """DDP would send them around at each step, averages of weights would take them in, checkpoints might."""
    network = Network("marginal_ce+marginal_dice")
    assert list(network.buffers()) == []
    assert set(network.state_dict()) == {"layer.weight", "layer.bias"}


@every_loss
def test_a_dry_run_on_the_meta_device(name):
    """Forward and backward, of a loss made anywhere: shapes alone, to count operations or memory."""
    loss = create(name)
    logits, target, annotated = (tensor.to("meta") for tensor in example(loss))
    dropped = lb.LabelDropout(0.5)(annotated)
    logits.requires_grad_()
    loss(logits, target, dropped).backward()
    assert logits.grad.shape == logits.shape
    assert logits.grad.is_meta


def test_dropout_keeps_p_after_a_dry_run():
    dropout = lb.LabelDropout(1.0)
    dropout(torch.ones(2, 3, dtype=torch.bool, device="meta"))
    assert dropout(torch.ones(2, 3, dtype=torch.bool)).tolist() == [[True, False, False]] * 2


@every_loss
def test_outputs_of_another_network_are_refused(name):
    """K channels given to a sigmoid loss, or K - 1 to a softmax, would be other classes, in silence."""
    loss = create(name)
    for method in ("predict", "probabilities", "flip_probability", "standard_deviation"):
        if not hasattr(loss, method):
            continue
        read = getattr(loss, method)
        read(torch.randn(1, loss.out_channels, 2))
        for channels in {1, 3, 4, 6, 8} - {loss.out_channels}:
            with pytest.raises(ValueError, match=f"logits must have {loss.out_channels} channels .* got {channels}"):
                read(torch.randn(1, channels, 2))
        with pytest.raises(ValueError, match=r"add the dimension that is missing"):
            read(torch.randn(loss.out_channels, 2))


@every_loss
def test_what_reads_the_outputs_compiles_into_one_graph(name):
    loss = create(name)
    logits = example(loss)[0]
    for method in ("predict", "probabilities", "flip_probability", "standard_deviation"):
        if hasattr(loss, method):
            read = getattr(loss, method)
            compiled = torch.compile(read, fullgraph=True, backend="eager")
            torch.testing.assert_close(compiled(logits), read(logits))
    torch.compiler.reset()


@every_loss
@pytest.mark.parametrize("backend", ["fused", "reference"])
@pytest.mark.parametrize(
    ("dtype", "ignore_index"),
    [(torch.uint8, 257), (torch.uint8, -255), (torch.int16, 2**16 + 1), (torch.int32, 2**32 + 1), (torch.int64, -1)],
)
def test_an_ignore_index_that_no_target_can_hold_ignores_nothing(name, backend, dtype, ignore_index):
    """1 in the target's type, if it were cast to it."""
    loss, plain = (create(name, backend=backend, **options) for options in ({"ignore_index": ignore_index}, {}))
    logits, target, annotated = example(loss)
    found = value_and_gradient(lambda z: loss(z, target.to(dtype), annotated), logits)
    expected = value_and_gradient(lambda z: plain(z, target, annotated), logits)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@every_loss
@pytest.mark.parametrize("backend", ["fused", "reference"])
@pytest.mark.parametrize("wrong", [4, -1, 2**62, -(2**63)])
def test_a_value_that_is_no_label_is_named_by_every_backend(name, backend, wrong):
    """-1 is no last label, as it would be to an index."""
    loss = create(name, backend=backend)
    logits, target, annotated = example(loss)
    target[1, 2, 3] = wrong
    with pytest.raises(ValueError, match=rf"got {wrong} at position \[1, 2, 3\]"):
        loss(logits, target, annotated)


@every_loss
@pytest.mark.parametrize("backend", ["fused", "reference"])
def test_a_wrong_value_is_no_ignored_one_that_was_wrapped_around(name, backend):
    """300 does not fit uint8, where it would be 44."""
    loss = create(name, backend=backend, ignore_index=300)
    logits, target, annotated = example(loss)
    target = target.to(torch.uint8)
    target[1, 2, 3] = 44
    with pytest.raises(ValueError, match=r"got 44 at position \[1, 2, 3\]"):
        loss(logits, target, annotated)


@pytest.mark.parametrize("name", ["dice", "ce+dice"])
def test_a_copy_has_the_same_process_group(name):
    """A group of torch's cannot be copied; averages of weights start from a copy of the network."""

    class Group:
        def __reduce_ex__(self, _):
            raise TypeError("cannot pickle")

    group = Group()
    loss = create(name, process_group=group, class_weights=[1, 2, 3, 4])
    copied = AveragedModel(loss).module
    found, dice = (each.terms[-1] if "+" in name else each for each in (copied, loss))
    assert found.process_group is group
    assert found.class_weights is not dice.class_weights
    assert repr(copied) == repr(loss)


@every_loss
@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32, torch.int8])
def test_the_reference_takes_every_integer_type(name, dtype):
    loss = create(name, backend="reference")
    logits, target, annotated = example(loss)
    torch.manual_seed(0)
    expected = loss(logits, target, annotated)
    torch.manual_seed(0)
    torch.testing.assert_close(loss(logits, target.to(dtype), annotated), expected)
