"""Marks of what was annotated on their way through MONAI's transforms and loaders; classes out of logits; metrics."""

import inspect
import math

import pytest
import torch
from every_loss import every_loss
from integrations.monai_data import LABELS, batches, expected, sample, samples
from monai.auto3dseg import datafold_read
from monai.data import (
    CacheDataset,
    DataLoader,
    Dataset,
    MetaTensor,
    PersistentDataset,
    SmartCacheDataset,
    ThreadDataLoader,
    decollate_batch,
    set_track_meta,
)
from monai.metrics import (
    ConfusionMatrixMetric,
    DiceMetric,
    GeneralizedDiceScore,
    HausdorffDistanceMetric,
    MeanIoU,
    SurfaceDiceMetric,
)
from monai.networks import one_hot
from monai.transforms import (
    AsDiscreted,
    Compose,
    EnsureTyped,
    RandAffined,
    RandCropByLabelClassesd,
    RandCropByPosNegLabeld,
    RandFlipd,
    RandSpatialCropSamplesd,
    Resized,
    Spacingd,
    SpatialPadd,
)

import labeldrop_bench as lb
from labeldrop_bench.integrations.monai import (
    AnnotatedOnly,
    MarkAnnotatedd,
    PartialLabelLoss,
    PredictClasses,
    PredictClassesd,
)

BOTH = ["image", "label"]
NEAREST = ["bilinear", "nearest"]

# ---- marks ----


@pytest.mark.parametrize(
    ("said", "row"),
    [
        (["disc"], [True, True, False]),
        (["background", "square"], [True, False, True]),
        ([1, "square"], [True, True, True]),
        ([], [True, False, False]),
        ({"disc": True, "square": False}, [True, True, False]),
        (None, [True, True, True]),
        (torch.tensor([True, False, True]), [True, False, True]),
        (torch.tensor([True, False, True]).numpy(), [True, False, True]),
    ],
)
@pytest.mark.parametrize("labels", [LABELS, lb.LabelSpace.of_classes(LABELS)])
def test_what_a_data_list_may_say(said, row, labels):
    marked = MarkAnnotatedd("label", labels, source="drawn")({**sample(0), "drawn": said})
    assert marked["label"].meta["annotated"].tolist() == marked["drawn"].tolist() == row
    again = MarkAnnotatedd("label", labels, source="drawn")(marked)
    assert again["label"].meta["annotated"].tolist() == row


@pytest.mark.parametrize(
    ("said", "kind", "message"),
    [
        (["sqare"], ValueError, "there is no label 'sqare'; did you mean 'square'"),
        ("disc", TypeError, "must be a list of label names"),
        ([3], ValueError, "there is no label 3"),
        ({"disc": True, "sqare": False}, ValueError, "there is no label 'sqare'; did you mean 'square'"),
        (torch.tensor([1, 2]), ValueError, r"'annotated' must be names, label values, or bool \[3\].*got \[1, 2\]"),
        (torch.tensor([False, True, True]), ValueError, "starts with True, background's"),
    ],
)
def test_what_says_nothing_is_named(said, kind, message):
    with pytest.raises(kind, match=message):
        MarkAnnotatedd("label", LABELS)({**sample(0), "annotated": said})


def test_a_data_list_read_by_folds():
    """`datafold_read` makes paths of all lists and texts: of names too, which is not taken for an answer."""
    cases = [{"image": "a", "fold": 1, "annotated": said} for said in (["disc"], {"disc": True})]
    (lists, mappings), _ = datafold_read({"training": cases}, basedir="/data")
    mark = MarkAnnotatedd("label", LABELS)
    assert mark({**mappings, "label": sample(0)["label"]})["annotated"].tolist() == [True, True, False]
    with pytest.raises(ValueError, match="there is no label '/data/disc'"):
        mark({**lists, "label": sample(0)["label"]})


def test_labels_that_are_not_read_yet():
    with pytest.raises(TypeError, match=r"'label' must be a label map, got 'a.nii.gz': it stands after LoadImaged"):
        MarkAnnotatedd("label", LABELS)({"label": "a.nii.gz"})
    with pytest.raises(KeyError, match="label"):
        MarkAnnotatedd("label", LABELS)({"image": 1})
    assert MarkAnnotatedd("label", LABELS, allow_missing_keys=True)({"image": 1})["annotated"].all()


WAYS = {
    "several crops": [RandCropByPosNegLabeld(BOTH, "label", (16, 16), num_samples=3)],
    "crops by class": [RandCropByLabelClassesd(BOTH, "label", (8, 8), num_classes=3, num_samples=2)],
    "crops anywhere": [RandSpatialCropSamplesd(BOTH, (8, 8), num_samples=2, random_size=False)],
    "warped": [RandAffined(BOTH, prob=1.0, rotate_range=0.5, mode=NEAREST), RandFlipd(BOTH, prob=1.0)],
    "other grids": [Spacingd(BOTH, (2.0, 2.0), mode=NEAREST), Resized(BOTH, (16, 16), mode=["area", "nearest"])],
    "padded": [SpatialPadd(BOTH, (32, 40)), EnsureTyped(BOTH)],
    "one-hot": [AsDiscreted("label", to_onehot=3)],
}
LOADERS = {
    "plain": lambda data, chain: DataLoader(Dataset(data, chain), batch_size=4),
    "workers": lambda data, chain: DataLoader(Dataset(data, chain), batch_size=4, num_workers=1),
    "cache": lambda data, chain: DataLoader(CacheDataset(data, chain, progress=False), batch_size=4),
    "smart cache": lambda data, chain: DataLoader(
        SmartCacheDataset(data, chain, shuffle=False, progress=False), batch_size=4
    ),
    "threads": lambda data, chain: ThreadDataLoader(CacheDataset(data, chain, progress=False), batch_size=4),
}


def agree(batch, per_case):
    """A batch's marks, and those of each of its samples, are those of the cases."""
    wanted = expected().repeat_interleave(per_case, dim=0)
    assert batch["label"].shape[0] == 4 * per_case
    assert torch.equal(batch["label"].meta["annotated"], wanted)
    assert torch.equal(batch["annotated"], wanted)
    for item, row in zip(decollate_batch(batch), wanted, strict=True):
        assert torch.equal(item["label"].meta["annotated"], row)
        assert torch.equal(item["annotated"], row)


@pytest.mark.parametrize("way", WAYS)
def test_marks_survive_transforms(way):
    (batch,) = batches(after=WAYS[way])
    agree(batch, {"several crops": 3, "crops by class": 2, "crops anywhere": 2}.get(way, 1))
    logits = torch.randn(len(batch["label"]), 3, *batch["label"].shape[2:], requires_grad=True)
    PartialLabelLoss("marginal_ce", num_classes=3)(logits, batch["label"]).backward()
    assert logits.grad.abs().sum() > 0


@pytest.mark.parametrize("loader", LOADERS)
def test_marks_survive_loaders(loader):
    chain = Compose([MarkAnnotatedd("label", LABELS), *WAYS["several crops"]])
    for _ in range(2):  # the second time from a cache
        (batch,) = LOADERS[loader](samples(), chain)
        agree(batch, 3)


def test_a_cache_on_the_disk(tmp_path):
    """It keeps no metadata, unless MONAI 1.6 is told to; the batch has what was annotated in any case."""
    can = "track_meta" in inspect.signature(PersistentDataset).parameters
    for options in ({"track_meta": True, "weights_only": False} if can else {}, {}):
        for _ in range(2):
            folder = tmp_path / str(len(options))
            data = PersistentDataset(samples(), MarkAnnotatedd("label", LABELS), cache_dir=folder, **options)
            (batch,) = DataLoader(data, batch_size=4)
            assert torch.equal(batch["annotated"], expected())
            if options:
                agree(batch, 1)
    with pytest.warns(UserWarning, match=r"nothing says what was annotated.*track_meta=False.*PrepareBatch"):
        PartialLabelLoss("ce", num_classes=3)(torch.randn(4, 3, 24, 24), batch["label"])


def test_without_metadata_the_batch_says_it():
    set_track_meta(False)
    try:
        (batch,) = batches()
    finally:
        set_track_meta(True)
    assert type(batch["label"]) is torch.Tensor
    assert torch.equal(batch["annotated"], expected())


# ---- classes ----


@every_loss
@pytest.mark.parametrize("wrap", [torch.as_tensor, MetaTensor, lambda tensor: tensor.numpy()])
def test_classes_are_those_of_the_loss(name, wrap):
    loss = PartialLabelLoss(name, num_classes=4)
    logits = torch.randn(2, loss.out_channels, 5, 6)
    classes = loss.predict(logits)
    for case, plain in enumerate(logits):
        found = PredictClassesd("pred", loss)({"pred": wrap(plain), "other": 1})
        assert found["other"] == 1
        assert torch.equal(torch.as_tensor(found["pred"]), classes[case : case + 1])
        hot = PredictClasses(loss, to_onehot=True)(wrap(plain))
        assert hot.shape == (4, 5, 6)
        assert torch.equal(hot.argmax(0), classes[case])
        assert (hot.sum(0) == 1).all()


# ---- metrics ----


def in_every_form(metric, pred, truth, rows):
    """The scores of a batch with given rows, of a batch of MetaTensors, and of a list of these."""
    batch = MetaTensor(truth, meta={"annotated": rows})
    batch.is_batch = True
    items = [MetaTensor(each, meta={"annotated": row}) for each, row in zip(truth, rows, strict=True)]
    for arguments in ((pred, truth, rows), (pred, batch), (list(pred), items)):
        yield torch.as_tensor(AnnotatedOnly(metric)(*arguments)).as_subclass(torch.Tensor)
    metric.reset()


METRICS = {
    "dice": lambda **o: DiceMetric(**o),
    "iou": lambda **o: MeanIoU(**o),
    "hausdorff": lambda **o: HausdorffDistanceMetric(percentile=95, **o),
    "surface": lambda **o: SurfaceDiceMetric(class_thresholds=[1.0] * (3 if o["include_background"] else 2), **o),
    "confusion": lambda **o: ConfusionMatrixMetric(metric_name="precision", **o),
}


@pytest.mark.parametrize("include_background", [True, False])
@pytest.mark.parametrize("name", METRICS)
def test_what_was_not_annotated_counts_for_nothing(name, include_background):
    """Whatever is predicted there; what was annotated is scored as without us."""
    make = METRICS[name]
    truth = one_hot(torch.stack([torch.as_tensor(each["label"]) for each in samples()]), 3)
    pred = one_hot(torch.randint(0, 3, (4, 1, 24, 24)), 3)
    everything = torch.as_tensor(make(include_background=include_background)(pred, truth)).float()
    rows = expected()[:, 0 if include_background else 1 :]
    for values in in_every_form(make(include_background=include_background), pred, truth, expected()):
        assert values[~rows].isnan().all()
        assert torch.equal(values[rows], everything[rows])


def test_the_average_is_that_of_what_was_annotated():
    """One case at a time, as evaluators of volumes do."""
    truth = one_hot(torch.stack([torch.as_tensor(each["label"]) for each in samples()]), 3)
    pred = one_hot(torch.randint(0, 3, (4, 1, 24, 24)), 3)
    everything = DiceMetric()(pred, truth)
    metric = AnnotatedOnly(DiceMetric(reduction="mean_batch"))
    for _ in range(2):
        for case in range(4):
            metric(pred[case : case + 1], truth[case : case + 1], expected()[case])
        assert len(metric) == 4
        by_hand = [everything[expected()[:, label], label].mean() for label in range(3)]
        torch.testing.assert_close(metric.aggregate(), torch.stack(by_hand))
        metric.reset()
        assert len(metric) == 0


def test_false_positives_count_where_the_class_was_annotated_alone():
    """ignore_empty=True would leave out both, ignore_empty=False would count both."""
    truth = one_hot(torch.zeros(2, 1, 4, 4), 3)
    pred = one_hot(torch.full((2, 1, 4, 4), 2), 3)
    metric = AnnotatedOnly(
        DiceMetric(include_background=False, ignore_empty=False, reduction="mean_batch", get_not_nans=True)
    )
    metric(pred, truth, torch.tensor([[True, True, True], [True, True, False]]))
    value, cases = metric.aggregate()
    assert value.tolist() == [1.0, 0.0]
    assert cases.tolist() == [2.0, 1.0]
    assert math.isnan(metric.get_buffer()[1, 1])


def test_what_a_metric_cannot_leave_out_is_said():
    truth = one_hot(torch.zeros(2, 1, 4, 4), 3)
    with pytest.raises(ValueError, match=r"nothing says what was annotated.*MarkAnnotatedd"):
        AnnotatedOnly(DiceMetric())(truth, truth)
    with pytest.raises(ValueError, match=r"nothing says what was annotated"):
        AnnotatedOnly(DiceMetric())(list(truth), list(truth))
    with pytest.raises(ValueError, match=r"annotated must be \[N, K\], .* got \[2, 5\] and scores \[2, 3\]"):
        AnnotatedOnly(DiceMetric())(truth, truth, torch.ones(2, 5, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"got \[1, 3\] and scores \[2, 3\]"):
        AnnotatedOnly(DiceMetric())(truth, truth, torch.ones(1, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"GeneralizedDiceScore must score each class .* scores \[2, 1\]"):
        AnnotatedOnly(GeneralizedDiceScore())(truth, truth, torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(TypeError, match="must be a CumulativeIterationMetric"):
        AnnotatedOnly(lambda y_pred, y: 1)
