"""Training and evaluation by MONAI's own engines."""

import json
import warnings

import pytest
import torch
from integrations.monai_data import LABELS, batches, expected, samples
from monai.bundle import ConfigParser
from monai.data import CacheDataset, DataLoader, ThreadDataLoader, set_track_meta
from monai.engines import IterationEvents, SupervisedEvaluator, SupervisedTrainer
from monai.handlers import IgniteMetricHandler, from_engine
from monai.inferers import SlidingWindowInferer, sliding_window_inference
from monai.losses import DeepSupervisionLoss, DiceCELoss
from monai.metrics import DiceMetric, LossMetric
from monai.networks.nets import DynUNet
from monai.transforms import AsDiscreted, Compose, EnsureTyped, RandCropByPosNegLabeld, RandFlipd
from torch import nn

import labeldrop_bench as lb
from labeldrop_bench.integrations.monai import (
    AnnotatedOnly,
    MarkAnnotatedd,
    PartialLabelLoss,
    PredictClassesd,
    PrepareBatch,
)

CPU = torch.device("cpu")
MARK = MarkAnnotatedd("label", LABELS)


class Net(nn.Sequential):
    def __init__(self, channels=3):
        torch.manual_seed(0)
        super().__init__(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, channels, 3, padding=1))


class Heads(Net):
    """A list of outputs, as networks with deep supervision have in training."""

    def forward(self, image):
        logits = super().forward(image)
        return [logits, logits[..., ::2, ::2]] if self.training else logits


def trained(loss, *, data=None, net=None, chain=(), loader=DataLoader, epochs=3, **options):
    """The network, and the losses of all steps."""
    net = net or Net()
    data = CacheDataset(data or samples(8), Compose([MARK, *chain]), progress=False)
    torch.manual_seed(0)
    trainer = SupervisedTrainer(
        device=CPU,
        max_epochs=epochs,
        train_data_loader=loader(data, batch_size=4),
        network=net,
        optimizer=torch.optim.Adam(net.parameters(), 1e-2),
        loss_function=loss,
        **options,
    )
    losses = []
    trainer.add_event_handler(
        IterationEvents.LOSS_COMPLETED, lambda engine: losses.append(float(engine.state.output["loss"]))
    )
    trainer.run()
    return net, losses


@pytest.mark.parametrize("loader", [DataLoader, ThreadDataLoader])
def test_a_training_where_everything_is_annotated_is_that_of_monai(loader):
    """The same curve from the same seed: float32 gradients differ by an ulp, which 6 steps of Adam do not blow up."""
    full = [{"image": each["image"], "label": each["label"]} for each in samples(8)]
    ours, theirs = PartialLabelLoss("ce+dice", num_classes=3), DiceCELoss(softmax=True, to_onehot_y=True)
    curves = [trained(loss, data=full, loader=loader)[1] for loss in (ours, theirs)]
    assert len(curves[0]) == 6
    torch.testing.assert_close(*map(torch.tensor, curves), rtol=1e-4, atol=1e-5)


def test_crops_augmentation_and_deep_supervision():
    chain = [
        RandCropByPosNegLabeld(["image", "label"], "label", (16, 16), num_samples=2),
        RandFlipd(["image", "label"], prob=0.5),
    ]
    loss = DeepSupervisionLoss(PartialLabelLoss(num_classes=3, dropout=0.3))
    _, losses = trained(loss, net=Heads(), chain=chain, epochs=10)
    assert sum(losses[-2:]) < sum(losses[:2])


def test_a_network_of_monai_with_deep_supervision():
    """DynUNet stacks its heads, all of one size: each is a call."""
    net = DynUNet(2, 1, 3, [3, 3, 3], [1, 2, 2], [2, 2], filters=[4, 8, 16], deep_supervision=True)
    inner = PartialLabelLoss(num_classes=3, dropout=0.5)
    seen = []
    inner.loss.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[2]))
    (batch,) = batches()
    heads = net(batch["image"])
    value = DeepSupervisionLoss(inner)(list(torch.unbind(heads, dim=1)), batch["label"])
    value.backward()
    assert len(seen) == heads.shape[1] > 1
    assert all(torch.equal(each, seen[0]) for each in seen)


@pytest.mark.parametrize("gone", ["compile", "untracked", "ensured"])
def test_where_metadata_get_lost_prepare_batch_hands_it_on(gone):
    """What is trained is what is trained with metadata."""
    reference, expected_losses = trained(PartialLabelLoss(num_classes=3))
    options = {"compile": True, "compile_kwargs": {"backend": "eager"}} if gone == "compile" else {}
    chain = [EnsureTyped(["image", "label"], track_meta=False)] if gone == "ensured" else []
    loss = PartialLabelLoss(num_classes=3)
    set_track_meta(gone != "untracked")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MONAI's, that it takes the metadata off
            with pytest.warns(UserWarning, match=r"nothing says what was annotated.*PrepareBatch\(loss\)"):
                _, unaware = trained(loss, chain=chain, **options)
            assert unaware != pytest.approx(expected_losses, rel=1e-5)
            net, losses = trained(loss, chain=chain, prepare_batch=PrepareBatch(loss), **options)
    finally:
        set_track_meta(True)
        torch.compiler.reset()
    assert losses == pytest.approx(expected_losses, rel=1e-5)
    for found, wanted in zip(net.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_a_batch_that_says_nothing_is_refused_by_prepare_batch():
    prepare = PrepareBatch(PartialLabelLoss(num_classes=3))
    with pytest.raises(ValueError, match="the batch has no 'annotated', which MarkAnnotatedd makes, got image, label"):
        prepare({"image": torch.zeros(1), "label": torch.zeros(1)})


def evaluated(net, loss, **options):
    """The evaluator, after its run, with Dice of what was annotated and the mean loss."""
    data = CacheDataset(samples(), MARK, progress=False)
    dice = AnnotatedOnly(DiceMetric(ignore_empty=False))
    post = [PredictClassesd("pred", loss, to_onehot=True), AsDiscreted("label", to_onehot=3)]
    evaluator = SupervisedEvaluator(
        device=CPU,
        val_data_loader=DataLoader(data, batch_size=2),
        network=net,
        postprocessing=Compose(post),
        key_val_metric={"dice": IgniteMetricHandler(dice, output_transform=from_engine(["pred", "label"]))},
        **options,
    )
    evaluator.run()
    return evaluator


@pytest.mark.parametrize("name", ["marginal_ce+marginal_dice", "smile", "label_flip"])
@pytest.mark.parametrize("inferer", [None, SlidingWindowInferer((16, 16), overlap=0.5)])
def test_an_evaluator_scores_what_was_annotated(name, inferer):
    loss = PartialLabelLoss(name, num_classes=3)
    net = Net(loss.out_channels).eval()
    evaluator = evaluated(net, loss, **({} if inferer is None else {"inferer": inferer}))
    details = evaluator.state.metric_details["dice"]
    assert torch.equal(details.isnan(), ~expected())
    by_hand = []
    for batch in batches():
        logits = (
            net(batch["image"])
            if inferer is None
            else sliding_window_inference(batch["image"], (16, 16), 2, net, overlap=0.5)
        )
        classes = loss.predict(logits).as_subclass(torch.Tensor)
        truth = batch["label"].as_tensor()[:, 0]
        for label in range(3):
            both = ((classes == label) & (truth == label)).flatten(1).sum(1)
            total = (classes == label).flatten(1).sum(1) + (truth == label).flatten(1).sum(1)
            by_hand.append(torch.where(total == 0, 1.0, 2 * both / total))
    torch.testing.assert_close(details.nan_to_num(), torch.stack(by_hand, 1).where(expected(), 0.0))


def test_a_loss_as_a_metric_has_no_dropout():
    (batch,) = batches()
    loss = PartialLabelLoss("marginal_ce", num_classes=3, dropout=1.0)
    metric = LossMetric(loss)
    logits = torch.randn(4, 3, 24, 24)
    metric(logits, batch["label"])
    label = batch["label"].as_tensor().long()
    assert metric.aggregate() == lb.MarginalCrossEntropy(3)(logits, label, expected())


def test_everything_is_made_from_what_json_can_hold():
    """As `_target_` of a bundle's configuration, and of Auto3DSeg's hyper-parameters."""
    here = "labeldrop_bench.integrations.monai."
    config = {
        "loss": {
            "_target_": "DeepSupervisionLoss",
            "loss": {
                "_target_": here + "PartialLabelLoss",
                "loss": "ce+dice",
                "num_classes": 3,
                "weights": [0.5, 1.0],
                "include_background": False,
                "softmax": True,
                "to_onehot_y": True,
                "dropout": {"_target_": "labeldrop_bench.LabelDropout", "p": 0.3, "classes": [2]},
            },
        },
        "other": {
            "_target_": here + "PartialLabelLoss",
            "loss": {"_target_": "labeldrop_bench.Smile", "label_space": "@space", "base": "focal"},
        },
        "space": {"_target_": "labeldrop_bench.LabelSpace.of_classes", "classes": LABELS},
        "mark": {"_target_": here + "MarkAnnotatedd", "keys": ["label"], "labels": LABELS, "source": "drawn"},
        "post": {"_target_": here + "PredictClassesd", "keys": "pred", "loss": "@other"},
        "prepare": {"_target_": here + "PrepareBatch", "loss": "$@loss.loss", "source": "drawn"},
        "metric": {"_target_": here + "AnnotatedOnly", "metric": {"_target_": "DiceMetric"}},
    }
    parser = ConfigParser(json.loads(json.dumps(config)))
    made = {key: parser.get_parsed_content(key) for key in config}
    assert made["loss"].loss.dropout.classes == (2,)
    assert made["loss"].loss.loss.weights == (0.5, 1.0)
    assert made["other"].label_space.classes == tuple(LABELS)
    assert made["prepare"].loss is made["loss"].loss
    assert made["post"].predict.loss is made["other"]
    (batch,) = DataLoader(
        CacheDataset([{**each, "drawn": each.get("annotated")} for each in samples()], made["mark"], progress=False),
        batch_size=4,
    )
    assert made["loss"](torch.randn(4, 3, 24, 24), batch["label"]).isfinite()
