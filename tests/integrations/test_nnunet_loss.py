"""The loss of the nnU-Net trainers beside nnU-Net's own: equal where everything was annotated, alone and in DDP."""

from types import SimpleNamespace

import nnunet_case  # noqa: F401 - asks for nnU-Net
import pytest
import torch
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as nnunet_trainer  # noqa: N813 - the module
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from two_processes import run_in_two_processes

from labeldrop_bench.integrations.nnunet import trainer as ours
from labeldrop_bench.integrations.nnunet.annotations import Annotations

NAMES = ("background", "LV", "LVM", "LA")
SIZES = {"2-D": (24, 20), "3-D": (12, 10, 8)}


def make_loss(trainer_class, *, spatial=3, batch_dice=False, ignore=False, scales=3, ddp=False, of_case=None):
    """What `_build_loss` of a trainer gives, without a data set."""
    labels = {name: value for value, name in enumerate(NAMES)} | ({"ignore": len(NAMES)} if ignore else {})
    trainer = object.__new__(trainer_class)
    trainer.label_manager = LabelManager(labels, None)
    trainer.configuration_manager = SimpleNamespace(
        batch_dice=batch_dice, pool_op_kernel_sizes=[[1] * spatial, *[[2] * spatial] * scales]
    )
    trainer.device, trainer.is_ddp, trainer.enable_deep_supervision = torch.device("cpu"), ddp, scales > 0
    trainer.annotations = Annotations(NAMES, of_case or {})
    trainer.dropout = None
    return trainer, trainer._build_loss()


def problem(size, *, ignore=False, scales=3, samples=2, seed=0):
    """Logits and label maps of each scale, as the loader gives them."""
    generator = torch.Generator().manual_seed(seed)
    logits, targets = [], []
    for scale in range(max(scales, 1)):
        shape = [max(n >> scale, 1) for n in size]
        logits.append(torch.randn(samples, len(NAMES), *shape, generator=generator).requires_grad_())
        values = torch.randint(0, len(NAMES) + ignore, (samples, 1, *shape), generator=generator)
        targets.append(values.to(torch.int16))
    return (logits, targets) if scales else (logits[0], targets[0])


def gradients(logits):
    return [each.grad.clone() for each in (logits if isinstance(logits, list) else [logits]) if each.grad is not None]


@pytest.mark.parametrize("scales", [3, 0])
@pytest.mark.parametrize("ignore", [False, True])
@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_where_everything_was_annotated_it_is_nnunets_plus_one(size, batch_dice, ignore, scales):
    how = {"spatial": len(size), "batch_dice": batch_dice, "ignore": ignore, "scales": scales}
    _, theirs = make_loss(nnunet_trainer.nnUNetTrainer, **how)
    logits, targets = problem(size, ignore=ignore, scales=scales)
    expected = theirs(logits, targets)
    expected.backward()
    wanted = gradients(logits)
    for each in logits if scales else [logits]:
        each.grad = None
    for name in ours.__all__:
        trainer, loss = make_loss(getattr(ours, name), **how)
        with trainer.knowing({"keys": ["a", "b"]}, drop=False):
            value = loss(logits, targets)
        value.backward()
        # both add float32 over at most a thousand pixels
        assert value.item() == pytest.approx(expected.item() + 1, abs=2e-6)
        found = gradients(logits)
        assert len(found) == len(wanted) == (scales - 1 if scales else 1)  # the last scale has weight 0
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-8)
        for each in logits if scales else [logits]:
            each.grad = None


def test_a_batch_without_any_annotated_pixel_has_no_gradient():
    trainer, loss = make_loss(ours.nnUNetTrainerPartialLabels, ignore=True, scales=0)
    logits, target = problem(SIZES["2-D"], scales=0)
    with trainer.knowing({"keys": ["a", "b"]}, drop=False):
        loss(logits, torch.full_like(target, len(NAMES))).backward()
    assert not logits.grad.any()


def test_a_class_counts_only_where_it_was_annotated():
    """In case b, background may be LA: there the loss does not change when probability moves from one to the other."""
    trainer, loss = make_loss(ours.nnUNetTrainerPartialLabels, scales=0, of_case={"b": frozenset({"LV", "LVM"})})
    logits, target = problem(SIZES["2-D"], scales=0)
    target[target == NAMES.index("LA")] = 0
    moved = logits.detach().clone()
    moved[1, [0, 3]] = moved[1, [3, 0]]
    with trainer.knowing({"keys": ["a", "b"]}, drop=False):
        assert loss(moved, target).item() == pytest.approx(loss(logits, target).item(), abs=1e-6)
    with trainer.knowing({"keys": ["a", "a"]}, drop=False):
        assert abs(loss(moved, target).item() - loss(logits, target).item()) > 1e-3


def test_half_precision_logits_as_autocast_gives_them():
    trainer, loss = make_loss(ours.nnUNetTrainerPartialLabels, of_case={"b": frozenset({"LV"})})
    logits, targets = problem(SIZES["3-D"])
    halves = [each.detach().half().requires_grad_() for each in logits]
    floats = [each.detach().float().requires_grad_() for each in halves]
    for given in (halves, floats):
        with trainer.knowing({"keys": ["a", "b"]}, drop=False):
            value = loss(given, targets)
        assert value.dtype == torch.float32
        (1024 * value).backward()  # as a GradScaler does
    for half, whole in zip(halves[:2], floats[:2], strict=True):
        torch.testing.assert_close(half.grad.float(), whole.grad, rtol=2e-3, atol=1e-6)  # half a unit of float16


def test_the_loss_refuses_a_batch_that_nobody_spoke_of():
    _, loss = make_loss(ours.nnUNetTrainerPartialLabels)
    with pytest.raises(RuntimeError, match="knowing"):
        loss(*problem(SIZES["3-D"]))


def test_a_sigmoid_loss_is_refused():
    class Sigmoid(ours.nnUNetTrainerPartialLabels):
        loss_name = "adaptive_bce"

    with pytest.raises(ValueError, match=r"Sigmoid: loss_name must be of the softmax family.*'adaptive_bce' is not"):
        make_loss(Sigmoid)


def test_options_of_the_loss():
    class Weighted(ours.nnUNetTrainerPartialLabels):
        loss_options = {"weights": (1, 2), "include_background": True}  # noqa: RUF012 - what a user writes

    trainer, _ = make_loss(Weighted, batch_dice=True)
    _, dice = trainer.partial_loss.loss.terms
    assert trainer.partial_loss.loss.weights == (1, 2)
    assert (dice.include_background, dice.batch) == (True, True)


DDP = """
sys.path += {path!r}
from test_nnunet_loss import NAMES, make_loss, nnunet_trainer, ours, problem
join()
logits, targets = problem((12, 10, 8), samples=4)
for batch_dice in (True, False):
    values, grads = [], []
    for cls in (nnunet_trainer.nnUNetTrainer, ours.nnUNetTrainerPartialLabels):
        trainer, loss = make_loss(cls, batch_dice=batch_dice, ddp=True)
        mine_logits = [each.detach()[mine].clone().requires_grad_() for each in logits]
        mine_targets = [each[mine] for each in targets]
        assert loss.weight_factors[-1] > 0, "DDP wants a gradient for the last scale"
        if cls is ours.nnUNetTrainerPartialLabels:
            with trainer.knowing({{"keys": ["a", "b"]}}, drop=False):
                value = loss(mine_logits, mine_targets)
        else:
            value = loss(mine_logits, mine_targets)
        value.backward()
        values.append(value.item()); grads.append([each.grad for each in mine_logits])
    assert abs(values[0] + 1 - values[1]) < 2e-6, values
    for a, b in zip(*grads):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-8)

# LA annotated in the cases of one process alone: all of the batch counts
of_case = {{"c": frozenset(NAMES[:3]), "d": frozenset(NAMES[:3])}}
for target in targets:
    target[2:][target[2:] == 3] = 0
trainer, loss = make_loss(ours.nnUNetTrainerPartialLabels, batch_dice=True, ddp=True, of_case=of_case)
mine_logits = [each.detach()[mine].clone().requires_grad_() for each in logits]
with trainer.knowing({{"keys": ["a", "b", "c", "d"][mine]}}, drop=False):
    value = loss(mine_logits, [each[mine] for each in targets])
value.backward()
trainer, whole = make_loss(ours.nnUNetTrainerPartialLabels, batch_dice=True, of_case=of_case)
whole.weight_factors = loss.weight_factors
with trainer.knowing({{"keys": ["a", "b", "c", "d"]}}, drop=False):
    expected = whole(logits, targets)
expected.backward()
total = value.detach().clone(); dist.all_reduce(total)
assert abs(total / 2 - expected) < 2e-6, (total / 2, expected)
for a, b in zip(mine_logits, logits):
    torch.testing.assert_close(a.grad / 2, b.grad[mine], rtol=1e-4, atol=1e-8)  # DDP takes the mean
"""


@pytest.mark.slow
def test_two_processes_of_ddp(tmp_path):
    folder = __file__.rpartition("/")[0]
    run_in_two_processes(DDP.format(path=[folder, f"{folder}/.."]), tmp_path)


@pytest.mark.slow
def test_a_compiled_network_as_on_cuda(monkeypatch):
    """There nnU-Net compiles the network and its own Dice; ours stays as it is, and the last scale has weight 0."""
    monkeypatch.setattr(nnunet_trainer.nnUNetTrainer, "_do_i_compile", lambda self: True)
    trainer, loss = make_loss(ours.nnUNetTrainerPartialLabels, ddp=True, of_case={"b": frozenset({"LV"})})
    assert loss.weight_factors[-1] == 0
    network = torch.nn.Conv3d(1, len(NAMES), 3, padding=1)
    data, (_, targets) = torch.randn(2, 1, 12, 10, 8), problem(SIZES["3-D"], scales=1)
    loss.weight_factors = (1.0,)
    found = []
    for each in (torch.compile(network, backend="aot_eager"), network):
        network.zero_grad()
        with trainer.knowing({"keys": ["a", "b"]}, drop=False):
            value = loss([each(data)], targets)
        value.backward()
        found.append((value.detach(), network.weight.grad.clone()))
    torch.testing.assert_close(*found)
