"""PartialLabelLoss: MONAI's numbers and argument names, and what a module is asked for."""

import copy
import pickle

import pytest
import torch
from every_loss import every_loss
from integrations.monai_data import K, batches, example, value_and_gradient
from monai.losses import DiceCELoss, DiceLoss, FocalLoss
from monai.networks import one_hot
from monai.transforms import AsDiscreted
from monai.utils import LossReduction

import labeldrop_bench as lb
from labeldrop_bench.integrations.monai import PartialLabelLoss

# ---- MONAI's numbers ----


DICE_CE = [
    {},
    {"include_background": False},
    {"batch": True},
    {"squared_pred": True},
    {"include_background": False, "batch": True, "squared_pred": True},
    {"reduction": "sum"},
    {"reduction": LossReduction.SUM},
]


@pytest.mark.parametrize("options", DICE_CE, ids=str)
@pytest.mark.parametrize("name", ["ce+dice", "marginal_ce+marginal_dice", "adaptive_ce+adaptive_dice"])
def test_dice_ce_of_monai_where_everything_is_annotated(name, options):
    """Float32 sums over 200 pixels: 1e-6."""
    logits, target, annotated = example()
    theirs = DiceCELoss(softmax=True, to_onehot_y=True, **options)
    ours = PartialLabelLoss(name, num_classes=K, softmax=True, to_onehot_y=True, **options)
    found = value_and_gradient(ours, logits, target, torch.ones_like(annotated))
    torch.testing.assert_close(found, value_and_gradient(theirs, logits, target), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", DICE_CE, ids=str)
def test_dice_of_monai_where_everything_is_annotated(options):
    logits, target, annotated = example()
    found = value_and_gradient(
        PartialLabelLoss("dice", num_classes=K, **options), logits, target, torch.ones_like(annotated)
    )
    theirs = DiceLoss(softmax=True, to_onehot_y=True, **options)
    torch.testing.assert_close(found, value_and_gradient(theirs, logits, target), rtol=1e-5, atol=1e-6)


def test_losses_by_sigmoid_are_monais_on_the_foreground():
    """MONAI averages over classes, ours sum them as the papers do."""
    logits, target, annotated = example(K - 1)
    everything = torch.ones_like(annotated)
    foreground = one_hot(target, K)[:, 1:]
    dice = PartialLabelLoss("dice", num_classes=K, activation="sigmoid", sigmoid=True)
    expected = value_and_gradient(DiceLoss(sigmoid=True), logits, foreground)
    torch.testing.assert_close(value_and_gradient(dice, logits, target, everything), expected, rtol=1e-5, atol=1e-6)
    focal = PartialLabelLoss("bce_focal", num_classes=K, gamma=1.5, sigmoid=True, include_background=True)
    value, gradient = value_and_gradient(FocalLoss(gamma=1.5), logits, foreground)
    found = value_and_gradient(focal, logits, target, everything)
    torch.testing.assert_close(found, ((K - 1) * value, (K - 1) * gradient), rtol=1e-5, atol=1e-6)


def test_weights_are_lambda_dice_and_lambda_ce():
    logits, target, annotated = example()
    theirs = DiceCELoss(softmax=True, to_onehot_y=True, lambda_ce=0.25, lambda_dice=2.0)
    ours = PartialLabelLoss("ce+dice", num_classes=K, weights=[0.25, 2.0])
    found = value_and_gradient(ours, logits, target, torch.ones_like(annotated))
    torch.testing.assert_close(found, value_and_gradient(theirs, logits, target), rtol=1e-5, atol=1e-6)


def test_ignored_pixels_are_those_of_monai():
    """A pixel that MONAI's Dice ignores (from 1.6 on) counts for nothing in either."""
    pytest.importorskip("monai.losses.dice")
    logits, target, annotated = example()
    target[0, 0, :3] = 255
    try:
        theirs = DiceLoss(softmax=True, to_onehot_y=True, ignore_index=255)
    except TypeError:
        pytest.skip("this MONAI has no ignore_index")
    ours = PartialLabelLoss("dice", num_classes=K, ignore_index=255)
    found = value_and_gradient(ours, logits, target, torch.ones_like(annotated))
    torch.testing.assert_close(found, value_and_gradient(theirs, logits, target), rtol=1e-5, atol=1e-6)


# ---- arguments ----


NOTHING = {
    "to_onehot_y": False, "softmax": True, "sigmoid": False, "other_act": None, "jaccard": False, "smooth_nr": 1e-5,
    "smooth_dr": 1e-5, "weight": None, "lambda_dice": 1.0, "lambda_ce": 1.0, "label_smoothing": 0.0,
    "soft_label": False, "ignore_index": None, "include_background": True, "squared_pred": False,
}  # fmt: skip


@pytest.mark.parametrize("name", ["ce", "ce+dice", "marginal_dice"])
def test_arguments_of_monai_that_change_nothing_are_taken(name):
    logits, target, annotated = example()
    plain, asked = (PartialLabelLoss(name, num_classes=K, **options) for options in ({}, NOTHING))
    assert plain(logits, target, annotated) == asked(logits, target, annotated)


@pytest.mark.parametrize("name", ["bce", "smile_focal", "label_flip"])
def test_a_loss_without_a_channel_of_background_includes_none(name):
    for value in (True, False):
        PartialLabelLoss(name, num_classes=K, include_background=value, sigmoid=True, softmax=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"softmax": False}, r"softmax=False does not fit SumOfLosses, which reads logits by softmax"),
        ({"sigmoid": True}, r"sigmoid=True does not fit"),
        ({"other_act": torch.tanh}, "other_act must be None or left out"),
        ({"jaccard": True}, "jaccard must be False or left out, got True: there is no Jaccard form"),
        ({"smooth_nr": 0}, "smooth_nr must be 1e-05 or left out, got 0"),
        ({"weight": torch.ones(4)}, "weight must be None or left out.*use class_weights"),
        ({"lambda_ce": 0.5}, "lambda_ce must be 1 or left out, got 0.5: use weights"),
        ({"label_smoothing": 0.1}, "label_smoothing must be 0 or left out"),
        ({"soft_label": True}, "a pixel of the target has one label"),
    ],
)
def test_arguments_of_monai_that_would_mean_another_thing_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        PartialLabelLoss(num_classes=K, **options)


def test_other_words_get_a_hint():
    with pytest.raises(TypeError, match="no argument 'out_channels'; did you mean num_classes"):
        PartialLabelLoss(out_channels=4)
    with pytest.raises(TypeError, match="only the Dice losses have it; a class weight of 0"):
        PartialLabelLoss("ce", num_classes=4, include_background=False)
    with pytest.raises(TypeError, match=r"loss must be a name, .*got None"):
        PartialLabelLoss(None, num_classes=4)
    with pytest.raises(TypeError, match="num_classes must be given to the loss itself"):
        PartialLabelLoss(lb.CrossEntropy(4), num_classes=4)
    with pytest.raises(TypeError, match=r"input must be a tensor, got list.*DeepSupervisionLoss"):
        PartialLabelLoss(num_classes=4)([torch.zeros(1, 4, 2)], torch.zeros(1, 1, 2))


def test_a_loss_that_is_made_already():
    logits, target, annotated = example()
    inner = lb.AdaptiveCrossEntropy(K, reduction="sum")
    loss = PartialLabelLoss(inner, to_onehot_y=True, softmax=True)
    assert loss(logits, target, annotated) == inner(logits, target.long(), annotated)
    assert loss.reduction == "sum"


# ---- as a module ----


@every_loss
def test_nothing_of_a_step_is_kept(name):
    """State dicts are empty, whatever was called before; copies and pickles draw their own labels."""
    loss = PartialLabelLoss(name, num_classes=K, dropout=0.5)
    logits, target, annotated = example(loss.out_channels)
    loss.annotated = annotated
    loss(logits.requires_grad_(), target)
    assert loss._drawn is not None
    for twin in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):  # noqa: S301 - ours
        assert twin.state_dict() == {}
        assert twin._drawn is None
        assert twin.annotated is None
        assert repr(twin) == repr(loss)
        twin.eval()
        torch.manual_seed(0)
        value = twin(logits, target, annotated)
        torch.manual_seed(0)
        assert value == loss.eval()(logits, target, annotated)
    assert list(loss.parameters()) == list(loss.buffers()) == []


@pytest.mark.parametrize(
    ("name", "form"), [("marginal_ce+marginal_dice", "labels"), ("smile", "one-hot"), ("predictive_variance", "labels")]
)
def test_compiled_into_one_graph(name, form):
    """Of plain tensors, with what was annotated given to the call."""
    torch.compiler.reset()
    loss = PartialLabelLoss(name, num_classes=K, dropout=1.0)
    logits, target, annotated = example(loss.out_channels)
    target = one_hot(target, K) if form == "one-hot" else target
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for training in (True, False):
        loss.train(training)
        results = []
        for each in (loss, compiled):
            torch.manual_seed(0)
            results.append(value_and_gradient(each, logits, target, annotated))
        torch.testing.assert_close(*results, rtol=1e-6, atol=1e-7)


def test_metadata_break_the_graph_and_nothing_else():
    """torch compiles no MetaTensors; MONAI's engines with compile=True hand on plain ones."""
    torch.compiler.reset()
    (batch,) = batches()
    loss = PartialLabelLoss("marginal_ce", num_classes=3)
    logits = torch.randn(4, 3, 24, 24)
    found = value_and_gradient(torch.compile(loss, backend="aot_eager"), logits, batch["label"])
    torch.testing.assert_close(found, value_and_gradient(loss, logits, batch["label"]), rtol=1e-6, atol=1e-7)


def test_one_hot_batches_of_monai():
    (batch,), (labels,) = batches(after=[AsDiscreted("label", to_onehot=3)]), batches()
    assert batch["label"].shape == (4, 3, 24, 24)
    loss = PartialLabelLoss("marginal_ce", num_classes=3)
    logits = torch.randn(4, 3, 24, 24)
    assert loss(logits, batch["label"]) == loss(logits, labels["label"])
