"""What was annotated, where a training takes the metadata off before it calls the loss: Auto3DSeg's way.

MONAI downloads Auto3DSeg's templates. Here AutoRunner, its analysis of the data and its making of folders are MONAI's,
and the template is a stand-in, `auto3dseg_templates/`, which makes and calls transforms, loss and score as SegResNet's.
"""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from integrations.framework_pages import PAGES
from integrations.monai_data import LABELS, batches, example, expected, sample, samples, value_and_gradient
from monai.bundle import ConfigParser
from monai.data import CacheDataset, DataLoader, Dataset, MetaTensor, decollate_batch, set_track_meta
from monai.losses import DeepSupervisionLoss
from monai.metrics import DiceHelper
from monai.transforms import Compose, Flipd, Invertd, NormalizeIntensity, RandFlipd, RandSpatialCropd, SpatialPadd
from pages import Shell

import labeldrop_bench as lb
from labeldrop_bench.integrations.monai import MarkTargetd, PartialLabelLoss

CROPS = [RandSpatialCropd(["image", "label"], (16, 16)), RandFlipd(["image", "label"], 0.5)]


def stripped(before=(), **options):
    """A batch's target as a plain tensor."""
    (batch,) = DataLoader(Dataset(samples(), Compose([*before, MarkTargetd("label", LABELS)])), batch_size=4, **options)
    return batch["label"].as_subclass(torch.Tensor)


def in_target(name="marginal_ce+marginal_dice", **options):
    return PartialLabelLoss(name, annotated_in="target", **{"num_classes": 3, **options})


@pytest.mark.parametrize("name", ["marginal_ce+marginal_dice", "adaptive_ce", "smile"])
@pytest.mark.parametrize("before", [(), CROPS], ids=["whole", "crops"])
def test_the_target_alone_says_what_metadata_say(name, before):
    """Value and gradient, from workers' batches, channels-last, after a transport through other types."""
    target = stripped(before, num_workers=1 if before else 0)
    loss = in_target(name)
    logits = torch.randn(4, loss.out_channels, *target.shape[2:])
    label = target.argmax(1)
    reference = value_and_gradient(lb.losses.create(name, num_classes=3), logits, label, expected())
    for given in (target, target.to(memory_format=torch.channels_last), target.half()):
        for found, wanted in zip(value_and_gradient(loss, logits, given), reference, strict=True):
            torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    everything = lb.losses.create(name, num_classes=3)(logits, label)
    assert reference[0] != everything, "and what they say matters"


def test_a_label_that_was_not_annotated_and_is_there_is_background():
    """As for every loss of the package."""
    data = {**sample(0), "annotated": ["disc"]}
    assert (data["label"] == 2).any()
    found = MarkTargetd("label", LABELS)(data)["label"]
    assert (found[2] == -1).all()
    assert torch.equal(found[0] == 1, torch.as_tensor(data["label"][0] != 1))
    assert torch.equal(found[1] == 1, torch.as_tensor(data["label"][0] == 1))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int64])
@pytest.mark.parametrize("track", [True, False])
def test_label_maps_of_every_type_with_and_without_metadata(dtype, track):
    set_track_meta(track)
    try:
        found = MarkTargetd("label", LABELS)({"label": sample(1)["label"].astype(dtype), "annotated": {"disc": True}})
    finally:
        set_track_meta(True)
    assert isinstance(found["label"], MetaTensor) == track
    assert found["label"].dtype == torch.float32
    assert found["label"].unique().tolist() == [-1, 0, 1]
    assert found["annotated"].tolist() == [True, True, False]


def test_samples_to_predict_have_no_label():
    data = {"image": np.zeros((1, 4, 4))}
    assert "label" not in MarkTargetd("label", LABELS, allow_missing_keys=True)(data)


def test_deep_supervision_hides_the_same_labels_at_every_scale():
    """Each scale has a target of its own, which interpolation makes; and the next step draws anew."""
    loss, seen = in_target(dropout=0.5), []
    loss.loss.register_forward_pre_hook(lambda _, given: seen.append(given[2]))
    target, draws = stripped(), []
    for _ in range(8):
        heads = [torch.randn(4, 3, size, size, requires_grad=True) for size in (24, 12, 6)]
        DeepSupervisionLoss(loss)(heads, target).backward()
        assert len(seen) == 3
        assert all(torch.equal(each, seen[0]) for each in seen)
        assert not (seen[0] & ~expected()).any()
        draws.append(tuple(seen[0].flatten().tolist()))
        seen.clear()
    assert len(set(draws)) > 1


def test_another_batch_before_the_gradient_has_its_own_annotation():
    loss, seen = in_target("marginal_ce", dropout=0.5), []
    loss.loss.register_forward_pre_hook(lambda _, given: seen.append(given[2]))
    target = stripped()
    for rows in (slice(0, 2), slice(1, 3), slice(0, 1)):
        loss(torch.randn(len(target[rows]), 3, 24, 24, requires_grad=True), target[rows])
        assert not (seen[-1] & ~expected()[rows]).any()
        assert len(seen[-1]) == len(target[rows])


def test_compiled_into_one_graph():
    """Nothing of the target but its values says what was annotated; label dropout draws in each call."""
    torch.compiler.reset()
    loss = in_target(dropout=1.0)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    logits, target = torch.randn(4, 3, 24, 24), stripped()
    loss(logits.clone().requires_grad_(), target)  # a step whose gradient never came
    for training in (True, False):
        loss.train(training)
        found, wanted = (value_and_gradient(each, logits, target) for each in (compiled, loss))
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-7)


def test_the_score_of_auto3dseg_leaves_out_what_was_not_annotated():
    """DiceHelper takes one-hot truth as it is."""
    target = stripped()
    pred = torch.randn(4, 3, 24, 24)
    scores = DiceHelper(reduction="none", get_not_nans=False)(pred, target)
    labels = DiceHelper(reduction="none", get_not_nans=False)(pred, target.argmax(1, keepdim=True))
    assert torch.equal(scores.isnan(), ~expected()[:, 1:])
    torch.testing.assert_close(scores.nan_to_num(), labels.nan_to_num())


def test_predictions_go_back_to_the_space_of_the_image():
    """As Auto3DSeg's do, past a transform that has no inverse."""
    keys = ["image", "label"]
    chain = Compose([Flipd(keys, 1), SpatialPadd(keys, (32, 32)), MarkTargetd("label", LABELS)])
    data = [{key: MetaTensor(value) if key in keys else value for key, value in each.items()} for each in samples()]
    (batch,) = DataLoader(Dataset(data, chain), batch_size=4)
    batch["pred"] = batch["image"].clone()
    invert = Invertd("pred", transform=chain, orig_keys="image")
    for found, given in zip(decollate_batch(batch), data, strict=True):
        assert torch.equal(invert(found)["pred"].as_tensor(), given["image"].as_tensor())


def test_caches_hold_label_maps_of_one_channel():
    data = CacheDataset(samples(), Compose([MarkTargetd("label", LABELS)]), progress=False)
    assert data._cache[0]["label"].shape[0] == 1
    assert data[0]["label"].shape[0] == 3


# ---- what is refused ----


def test_a_target_that_says_nothing_is_refused():
    """Where the transform is missing, or stands where its work is undone."""
    (batch,) = batches()
    logits = torch.randn(4, 3, 24, 24)
    with pytest.raises(ValueError, match=r"one-hot targets \[N, 3, \*spatial\], got shape \[4, 1, 24, 24\]: MarkTarg"):
        in_target()(logits, batch["label"])
    padded = torch.nn.functional.pad(stripped(), (0, 2))
    with pytest.raises(ValueError, match=r"-1, .*, in all pixels of a channel or in none.*MarkTargetd stands after"):
        in_target()(torch.randn(4, 3, 24, 26), padded)
    with pytest.raises(ValueError, match=r"must have one 1 and be 0 elsewhere, got \[.*\] at position \[0, 0, 0\]"):
        in_target()(logits, stripped() * 0.5)


def test_a_loss_that_is_not_told_where_to_look_says_so():
    arguments = torch.randn(4, 3, 24, 24), stripped()
    with pytest.raises(ValueError, match=r"as Auto3DSeg does, use MarkTargetd and annotated_in='target'"):
        PartialLabelLoss(num_classes=3, annotated_in="metadata")(*arguments)
    with pytest.raises(ValueError, match="the -1 of MarkTargetd is read with annotated_in='target'"):
        PartialLabelLoss(num_classes=3)(*arguments, expected())
    with pytest.raises(ValueError, match="annotated_in must be None, 'metadata' or 'target', got 'label'"):
        PartialLabelLoss(num_classes=3, annotated_in="label")


def test_what_the_call_says_comes_first():
    logits, _, _ = example(3, 24, 4)
    everything = torch.ones(4, 3, dtype=torch.bool)
    target = stripped()
    assert in_target()(logits, target, everything) == in_target().loss(logits, target.argmax(1), everything)


@pytest.mark.parametrize("wrong", [3.0, -1.0, 0.5, "channels"])
def test_label_maps_of_other_values_are_refused(wrong):
    label = sample(0)["label"]
    if wrong == "channels":
        label = np.concatenate([label, label])
    else:
        label[0, 0, 0] = wrong
    with pytest.raises(ValueError, match=r"MarkTargetd: 'label' must be \[1, \*spatial\] of .* 0 to 2, got"):
        MarkTargetd("label", LABELS)({"label": label})
    with pytest.raises(TypeError, match="MarkTargetd: 'label' must be a label map"):
        MarkTargetd("label", LABELS)({"label": "a path"})


# ---- AutoRunner ----

TEMPLATES = Path(__file__).parent / "auto3dseg_templates"
TINY = {"num_fold": 1, "ensemble": False, "batch_size": 4, "num_steps_per_image": 2, "calc_val_loss": True}


def volume(rng, source):
    """Image and label of a ball and a cube; source B has another look."""
    size = 20
    place = np.stack(np.mgrid[:size, :size, :size], axis=-1)
    label = np.zeros((size, size, size), np.uint8)
    label[((place - rng.uniform((5, 5, 5), (7, 15, 15))) ** 2).sum(-1) < 20] = 1
    z, y, x = rng.integers((11, 1, 1), (14, 13, 13))
    label[z : z + 6, y : y + 6, x : x + 6] = 2
    image = np.array([0.2, 1, 0.6])[label] + rng.normal(0, 0.1, label.shape)
    if source == "B":
        image = 0.8 * image + 0.3 * np.cos(place[..., 2] / 2)
    return image.astype(np.float32), label


def write_data(folder):
    """Ten cases of each source to train with, two to validate; nobody annotated the cubes of B."""
    rng, cases = np.random.default_rng(0), []
    for case in range(12):
        for source in "AB":
            image, label = volume(rng, source)
            label[(label == 2) & (source == "B")] = 0
            names = {key: f"{source}{case}_{key}.npy" for key in ("image", "label")}
            np.save(folder / names["image"], image)
            np.save(folder / names["label"], label)
            told = {"annotated": {"disc": True}} if source == "B" else {}
            cases.append({**names, **told, "fold": int(case < 10)})
    (folder / "folds.json").write_text(json.dumps({"training": cases}), encoding="utf-8")


def auto3dseg(folder, change=lambda _: None, **options):
    """The files of the page, with a few keys of the test's, run as the page says."""
    if not PAGES["monai"].path.exists() and "CI" not in os.environ:
        pytest.skip("docs/ is not in this copy of the sources")
    shown = {step.name: step.shown for step in PAGES["monai"].files}
    write_data(folder)
    wishes = {**json.loads(shown["auto3dseg.json"]), **TINY, **options, "templates_path_or_url": str(TEMPLATES)}
    change(wishes)
    (folder / "auto3dseg.json").write_text(json.dumps(wishes), encoding="utf-8")
    (folder / "partial_labels.py").write_text(shown["partial_labels.py"], encoding="utf-8")
    (command,) = re.findall(r"^python -m monai.apps.auto3dseg .*$", PAGES["monai"].text, re.MULTILINE)
    Shell(folder, {}, lambda _: False).run(command)
    return folder / "work_dir" / "segresnet_0" / "model"


@pytest.mark.slow
def test_a_class_that_nobody_annotated_in_a_source_is_found_there(tmp_path):
    """Its Dice was 0.58, and 0.01 with the template's own loss, which takes what nobody annotated for background."""
    model = auto3dseg(tmp_path, num_epochs=24)
    (report,) = ConfigParser.load_config_file(model / "progress.yaml")
    assert all(0.6 < value <= 1 for value in report["of_classes"])
    kept = torch.load(model / "model.pt", weights_only=False)
    network = ConfigParser(kept["config"]["network"]).get_parsed_content().eval()
    network.load_state_dict(kept["state_dict"])
    rng, dice = np.random.default_rng(1), []
    for _ in range(6):
        image, label = (torch.as_tensor(each)[None] for each in volume(rng, "B"))
        normal = torch.as_tensor(NormalizeIntensity(nonzero=True, channel_wise=True)(image))
        with torch.no_grad():
            dice.append(DiceHelper(get_not_nans=False)(network(normal[None]), label[None]))
    disc, square = torch.stack(dice).mean(0)
    assert disc > 0.7
    assert square > 0.3


@pytest.mark.slow
def test_metadata_that_auto3dseg_takes_off_stop_the_training(tmp_path):
    """MONAI shows nothing that a training prints, unless it fails."""

    def by_metadata(wishes):
        wishes["loss"]["annotated_in"] = "metadata"
        (custom,) = wishes["custom_data_transforms"]
        custom["key"] = "after_load_transforms"
        custom["transform"]["_target_"] = "in_metadata.MarkAnnotatedd"

    line = "from labeldrop_bench.integrations.monai import MarkAnnotatedd"
    (tmp_path / "in_metadata.py").write_text(line, encoding="utf-8")
    with pytest.raises(RuntimeError, match=r"nothing says what was annotated.*as Auto3DSeg does, use MarkTargetd"):
        auto3dseg(tmp_path, by_metadata, num_epochs=1)
