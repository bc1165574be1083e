"""PartialLabelLoss: targets as MONAI has them, what was annotated, and label dropout."""

import warnings

import pytest
import torch
from integrations.monai_data import LABELS, K, batches, example, expected, samples, value_and_gradient
from monai.data import DataLoader, Dataset, MetaTensor
from monai.losses import DeepSupervisionLoss
from monai.networks import one_hot
from monai.transforms import EnsureTyped

import labeldrop_bench as lb
from labeldrop_bench.integrations.monai import MarkAnnotatedd, PartialLabelLoss

# ---- targets ----


TYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8, torch.int8, torch.int16, torch.int32]


@pytest.mark.parametrize("dtype", [*TYPES, torch.int64, torch.uint16], ids=str)
@pytest.mark.parametrize("wrap", [torch.as_tensor, MetaTensor])
@pytest.mark.parametrize("form", ["labels", "no channel", "one-hot"])
@pytest.mark.parametrize("name", ["marginal_ce+marginal_dice", "smile"])
def test_whole_numbers_of_every_type_and_one_hot(name, form, wrap, dtype):
    loss = PartialLabelLoss(name, num_classes=K)
    logits, target, annotated = example(loss.out_channels)
    expected = value_and_gradient(lb.losses.create(name, num_classes=K), logits, target.long(), annotated)
    given = {"labels": target, "no channel": target[:, 0], "one-hot": one_hot(target, K)}[form]
    found = value_and_gradient(loss, wrap(logits), wrap(given.to(dtype)), annotated)
    torch.testing.assert_close(found[0], expected[0], rtol=0, atol=0)
    torch.testing.assert_close(found[1].as_subclass(torch.Tensor), expected[1], rtol=0, atol=0)
    assert type(found[0]) is torch.Tensor


@pytest.mark.parametrize("wrong", [0.5, float("nan"), float("inf"), 1.0000001])
def test_values_that_are_no_whole_numbers_are_named(wrong):
    logits, target, annotated = example()
    target = target.double()
    target[1, 0, 2, 3] = wrong
    with pytest.raises(ValueError, match=rf"target must hold label values, .*got {wrong}: .*mode='nearest'"):
        PartialLabelLoss("ce", num_classes=K)(logits, target, annotated)


@pytest.mark.parametrize("wrong", [[1, 1, 0, 0], [0, 0, 0, 0], [0.5, 0.5, 0, 0], [1, 0, 2, 0]])
def test_pixels_of_several_labels_or_none_are_named(wrong):
    logits, target, annotated = example()
    target = one_hot(target, K)
    target[1, :, 2, 3] = torch.tensor(wrong)
    with pytest.raises(ValueError, match=r"one-hot target .* at position \[1, 2, 3\]"):
        PartialLabelLoss("ce", num_classes=K)(logits, target, annotated)


@pytest.mark.parametrize("form", ["labels", "one-hot"])
def test_where_the_host_looks_at_no_values_a_wrong_one_is_no_label(form, monkeypatch):
    """As on a GPU: it becomes a value that is no label, and not one that was rounded or wrapped around."""
    monkeypatch.setattr(lb.ops, "has_values", lambda _: False)
    logits, target, annotated = example()
    if form == "labels":
        target[1, 0, 2, 3] = 1.4
    else:
        target = one_hot(target, K)
        target[1, :, 2, 3] = 0
    with pytest.raises(ValueError, match=rf"got {2**31 - 1} at position \[1, 2, 3\]"):
        PartialLabelLoss("ce", num_classes=K)(logits, target, annotated)


# ---- what was annotated ----


def test_the_metadata_say_what_was_annotated():
    (batch,) = batches()
    loss = PartialLabelLoss("ce", num_classes=3)
    logits = torch.randn(4, 3, 24, 24)
    expected_value = lb.CrossEntropy(3)(logits, batch["label"].long().as_subclass(torch.Tensor), expected())
    assert loss(logits, batch["label"]) == expected_value
    marginal = PartialLabelLoss("marginal_ce", num_classes=3)
    everything = torch.ones(4, 3, dtype=torch.bool)
    assert marginal(logits, batch["label"]) == marginal(logits, batch["label"], expected())
    assert marginal(logits, batch["label"]) != marginal(logits, batch["label"], everything), "the call's comes first"


def test_a_single_sample_has_a_row():
    """As metrics of losses call it: one sample after the other."""
    (batch,) = batches()
    loss = PartialLabelLoss("marginal_ce", num_classes=3)
    sample = MarkAnnotatedd("label", LABELS)(samples(2)[1])["label"].unsqueeze(0)
    logits = torch.randn(1, 3, 24, 24)
    assert sample.meta["annotated"].tolist() == [True, True, False]
    assert loss(logits, sample) == loss(logits, batch["label"].as_subclass(torch.Tensor)[1:2], expected()[1:2])


def test_nothing_that_says_what_was_annotated_is_everything_with_a_warning():
    """As `annotated=None` is for every loss; never in silence, since MONAI loses metadata in silence."""
    (batch,) = batches()
    logits, label = torch.randn(4, 3, 24, 24), batch["label"].as_tensor()
    (untracked,) = batches(after=[EnsureTyped("label", track_meta=False)])
    for target in (label, untracked["label"]):
        loss = PartialLabelLoss("marginal_ce", num_classes=3)
        with pytest.warns(UserWarning, match=r"nothing says what was annotated.*MarkAnnotatedd.*PrepareBatch"):
            value = loss(logits, target)
        assert value == loss.loss(logits, label.long())
        assert value != loss(logits, target, expected())
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # once for each loss
        loss = PartialLabelLoss("marginal_ce", num_classes=3)
        with pytest.warns(UserWarning, match="everything counts as annotated"):
            loss(logits, label)
        loss(logits, label)
        loss(logits[:2], label[:2])


def test_a_call_that_knows_less_than_the_one_before_is_an_error():
    (batch,) = batches()
    logits, label = torch.randn(4, 3, 24, 24), batch["label"]
    for tell in ({"target": label}, {"target": label.as_tensor(), "annotated": expected()}):
        loss = PartialLabelLoss("ce", num_classes=3)
        loss(logits, **tell)
        with pytest.raises(ValueError, match=r"nothing says .*, and earlier calls knew it.*PrepareBatch"):
            loss(logits, label.as_tensor())


@pytest.mark.parametrize("where", ["metadata", "target"])
def test_where_a_place_is_named_it_must_say_so_at_once(where):
    (batch,) = batches()
    loss = PartialLabelLoss("ce", num_classes=3, annotated_in=where)
    with pytest.raises(ValueError, match=r"PartialLabelLoss: .*MarkTargetd"):
        loss(torch.randn(4, 3, 24, 24), batch["label"].as_tensor())


def test_collating_with_a_sample_that_has_no_marks_warns():
    """MONAI keeps what the metadata of all samples have, and drops the rest in silence."""
    marked, bare = MarkAnnotatedd("label", LABELS)(samples(1)[0]), {"label": MetaTensor(samples(1)[0]["label"])}
    (batch,) = DataLoader(Dataset([{"label": marked["label"]}, bare]), batch_size=2)
    with pytest.warns(UserWarning, match=r"nothing says what was annotated.*every sample"):
        PartialLabelLoss("ce", num_classes=3)(torch.randn(2, 3, 24, 24), batch["label"])


@pytest.mark.parametrize("mark", [True, False])
def test_one_draw_for_all_scales_where_nobody_tells(mark):
    loss = PartialLabelLoss("marginal_ce", num_classes=3, dropout=0.5)
    seen = []
    loss.loss.register_forward_pre_hook(lambda _, given: seen.append(given[2]))
    (batch,) = batches()
    target = batch["label"] if mark else batch["label"].as_tensor()
    scales = [torch.randn(4, 3, size, size, requires_grad=True) for size in (24, 12, 6)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        DeepSupervisionLoss(loss)(scales, target).backward()
    assert len(seen) == 3
    assert all(each is seen[0] for each in seen)


def test_the_first_samples_row_is_not_taken_for_all():
    """What torch's own stacking makes of metadata."""
    chain = MarkAnnotatedd("label", LABELS)
    stacked = torch.stack([chain(each)["label"] for each in samples()])
    with pytest.raises(ValueError, match=r"a row for each of the 4 samples, got one .*monai.data.DataLoader"):
        PartialLabelLoss("ce", num_classes=3)(torch.randn(4, 3, 24, 24), stacked)


def test_names_instead_of_a_table_get_a_hint():
    logits, target, _ = example()
    with pytest.raises(TypeError, match=r"annotated must be a bool tensor.*MarkAnnotatedd, or by LabelSpace.annotated"):
        PartialLabelLoss("ce", num_classes=K)(logits, target, [["LV"]] * 3)


# ---- label dropout ----


def scales(batch, loss):
    """Logits at three scales, as a network with deep supervision has them."""
    logits = torch.randn(len(batch["label"]), loss.out_channels, 24, 24)
    return [logits[..., ::step, ::step].clone().requires_grad_() for step in (1, 2, 4)]


class Seen(PartialLabelLoss):
    """Keeps what the loss is shown at each call."""

    def __init__(self, **options):
        super().__init__("marginal_ce", num_classes=3, **options)
        self.seen = []
        inner = self.loss.forward
        self.loss.forward = lambda logits, target, annotated: (
            self.seen.append((tuple(logits.shape[2:]), annotated)) or inner(logits, target, annotated)
        )


def test_deep_supervision_just_works():
    """Targets come as float32 MetaTensors, and smaller ones from interpolation."""
    (batch,) = batches()
    loss = Seen()
    value = DeepSupervisionLoss(loss, weights=[1.0, 0.5, 0.25])(heads := scales(batch, loss), batch["label"])
    assert [size for size, _ in loss.seen] == [(24, 24), (12, 12), (6, 6)]
    assert all(torch.equal(annotated, expected()) for _, annotated in loss.seen)
    plain = lb.MarginalCrossEntropy(3)
    label = batch["label"].as_tensor()
    nearest = [torch.nn.functional.interpolate(label, head.shape[2:], mode="nearest-exact") for head in heads]
    by_hand = sum(
        weight * plain(head, target.long(), expected())
        for weight, head, target in zip([1.0, 0.5, 0.25], heads, nearest, strict=True)
    )
    torch.testing.assert_close(value, by_hand)


def test_one_draw_serves_all_scales_and_the_next_step_has_its_own():
    loss = Seen(dropout=0.5)
    deep = DeepSupervisionLoss(loss)
    (batch,) = batches(count=16)
    draws = []
    for _ in range(8):  # the same batch each time, as when one is overfitted
        deep(scales(batch, loss), batch["label"]).backward()
        (first, second, third), loss.seen[:] = [annotated for _, annotated in loss.seen], []
        assert torch.equal(first, second)
        assert torch.equal(first, third)
        assert not (first & ~expected(16)).any(), "what was not annotated does not come back"
        draws.append(first)
    assert len({tuple(draw.flatten().tolist()) for draw in draws}) == 8
    hidden = torch.stack(draws).logical_not()[:, expected(16)].float().mean()
    assert 0.2 < hidden < 0.45  # a half of what is no background: a third of three labels, five standard deviations


def test_each_micro_batch_has_its_own_draw():
    loss = Seen(dropout=0.5)
    for batch in batches(count=16, batch_size=8):
        loss(scales(batch, loss)[0], batch["label"])  # the gradient comes later, for both
    (_, first), (_, second) = loss.seen
    assert not torch.equal(first, second)


def test_what_validation_sees_does_not_depend_on_luck():
    """In eval mode, and for logits that want no gradient: engines put the network alone into eval mode."""
    loss = Seen(dropout=1.0)
    (batch,) = batches()
    logits = scales(batch, loss)[0]
    loss(logits.detach(), batch["label"])
    with torch.no_grad():
        loss(logits, batch["label"])
    loss.eval()
    loss(logits, batch["label"])
    assert all(torch.equal(annotated, expected()) for _, annotated in loss.seen)
    loss.train()
    loss(logits, batch["label"])
    assert not loss.seen[-1][1][:, 1:].any()


def test_dropout_may_be_a_module_with_its_own_classes():
    (batch,) = batches()
    loss = Seen(dropout=lb.LabelDropout(1.0, classes=[2]))
    loss(scales(batch, loss)[0], batch["label"])
    assert loss.seen[0][1].tolist() == [[True, True, False]] * 4


def test_without_dropout_no_random_number_is_drawn():
    """A training is the same as with MONAI's loss, to the last dropout of the network."""
    (batch,) = batches()
    loss = PartialLabelLoss("ce", num_classes=3)
    before = torch.get_rng_state()
    loss(torch.zeros(4, 3, 24, 24, requires_grad=True), batch["label"])
    assert torch.equal(torch.get_rng_state(), before)
