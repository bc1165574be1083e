"""The nnU-Net trainers inside nnU-Net: a training step, validation, checkpoints, the cascade, and what they refuse."""

from __future__ import annotations

import json
import multiprocessing.dummy
import random
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from nnunet_case import call, edit, environment, shrink
from nnunet_tree import volume, write_nnunet
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as stock  # noqa: N813 - the module

from labeldrop_bench.integrations.nnunet import trainer as ours
from labeldrop_bench.integrations.nnunet.annotations import AnnotationError

DATASET = "Dataset007_Blocks"
LABELS = {"background": 0, "LV": 1, "LVM": 2, "LA": 3}
WITHOUT = ["LV", "LVM"]
pytestmark = pytest.mark.slow  # all need a data set that nnU-Net has planned


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """A data set of 6 + 6 volumes, LA missing in the second half, planned for 2-D and 3-D; its folder."""
    place = tmp_path_factory.mktemp("nnunet")
    (place / "raw").mkdir()
    cases = {}
    for number in range(6):
        cases[f"A_{number}"] = volume(number, values=4)
        image, labels = volume(100 + number, values=4)
        cases[f"B_{number}"] = image, np.where(labels == 3, 0, labels)
    raw = write_nnunet(place / "raw" / DATASET, cases, LABELS)
    edit(raw / "dataset.json", annotated_labels={name: WITHOUT for name in cases if name[0] == "B"})
    call("nnUNetv2_plan_and_preprocess -d 7 -c 2d 3d_fullres -np 1 -npfp 1", environment(place))
    shrink(place / "preprocessed" / DATASET / "nnUNetPlans.json", (4, 8, 16))
    return place


@pytest.fixture
def place(planned, tmp_path, monkeypatch):
    """The folders of nnU-Net, for this test alone; its variables are set."""
    shutil.copytree(planned, tmp_path, dirs_exist_ok=True)
    for name, value in {**environment(tmp_path), "nnUNet_n_proc_DA": "0"}.items():
        if name != "PYTHONPATH":
            monkeypatch.setenv(name, value)
    monkeypatch.setattr(multiprocessing, "get_context", lambda *_: multiprocessing.dummy)  # processes start slowly
    monkeypatch.setattr(torch, "compile", lambda *_: pytest.fail("nnU-Net does not compile on the CPU"))
    return tmp_path


def make(place, trainer_class=ours.nnUNetTrainerPartialLabels, configuration="3d_fullres", fold=0, resume=False):
    """A trainer as nnUNetv2_train makes it, that trains for two epochs of three steps."""
    folder = place / "preprocessed" / DATASET
    plans = json.loads((folder / "nnUNetPlans.json").read_text())
    description = json.loads((folder / "dataset.json").read_text())
    made = trainer_class({**plans, "continue_training": resume}, configuration, fold, description, torch.device("cpu"))
    made.logger.plot_progress_png = lambda _: None  # three seconds an epoch
    made.num_epochs, made.num_iterations_per_epoch, made.num_val_iterations_per_epoch = 2, 3, 2
    return made


def seed(value=0):
    for each in (random.seed, np.random.seed, torch.manual_seed):
        each(value)


def annotate(place, table):
    for part in ("raw", "preprocessed"):
        edit(place / part / DATASET / "dataset.json", annotated_labels=table)


def batch_of(trainer, keys):
    """A batch of the validation loader, which claims to be of these cases."""
    _, loader = trainer.get_dataloaders()
    return {**next(loader), "keys": keys}


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
def test_where_everything_was_annotated_it_trains_as_the_stock_trainer(place, configuration):
    annotate(place, {})
    curves = []
    for trainer_class in (stock.nnUNetTrainer, ours.nnUNetTrainerPartialLabels):
        seed()
        trainer = make(place, trainer_class, configuration)
        trainer.run_training()
        curves.append(
            {key: trainer.logger.get_value(key, None) for key in ("train_losses", "val_losses", "mean_fg_dice")}
        )
    theirs, mine = curves
    for key in ("train_losses", "val_losses"):
        np.testing.assert_allclose(mine[key], np.asarray(theirs[key]) + 1, atol=2e-4)  # float32, six steps
    np.testing.assert_allclose(mine["mean_fg_dice"], theirs["mean_fg_dice"], atol=2e-2)  # a pixel may change sides
    assert len(set(mine["train_losses"])) == 2


def test_counts_of_a_validation_step_are_the_stock_trainers_where_everything_was_annotated(place):
    seed()
    trainer = make(place)
    trainer.initialize()
    batch = batch_of(trainer, ["A_0", "A_1"])
    with torch.no_grad():
        expected = stock.nnUNetTrainer.validation_step
        with trainer.knowing(batch, drop=False):
            theirs = expected(trainer, dict(batch))
    mine = trainer.validation_step(batch)
    assert set(mine) == set(theirs)
    for key, value in theirs.items():
        np.testing.assert_array_equal(mine[key], value)
        assert mine[key].dtype == value.dtype


def test_predicting_what_was_not_annotated_counts_for_nothing(place):
    trainer = make(place)
    trainer.initialize()
    trainer.network = lambda data: [torch.eye(4)[3].view(1, 4, 1, 1, 1).expand(len(data), 4, *data.shape[2:])] * 3
    batch = batch_of(trainer, ["A_0", "B_0"])
    trainer.loss = lambda *_: torch.zeros(())
    batch["target"][0][1][batch["target"][0][1] == 3] = 0
    one, both = (trainer.validation_step({**batch, "keys": keys}) for keys in (["A_0", "B_0"], ["A_0", "A_0"]))
    pixels, la = batch["target"][0][0].numel(), int((batch["target"][0][0] == 3).sum())
    assert (one["tp_hard"][2], one["fp_hard"][2]) == (la, pixels - la)
    assert both["fp_hard"][2] == 2 * pixels - la
    np.testing.assert_array_equal(one["fn_hard"][:2], both["fn_hard"][:2])  # LV and LVM are missed all the same


def test_labels_are_dropped_once_a_step_for_all_scales(place):
    class Dropping(ours.nnUNetTrainerPartialLabels):
        p_drop = 0.5

    trainer = make(place, Dropping)
    trainer.initialize()
    trainer.loss.weight_factors = (0.5, 0.5)  # so small a network has two scales, the last of which is not used
    seen = []
    trainer.partial_loss.loss.register_forward_pre_hook(lambda _, args: seen.append(args[2].clone()))
    batch = batch_of(trainer, ["A_0", "B_0"])
    draws = []
    for _ in range(20):
        seen.clear()
        trainer.train_step(batch)
        first, second = seen
        assert torch.equal(first, second)
        draws.append(seen[0])
    table = torch.stack(draws)
    assert table[:, :, 0].all()
    assert not table[:, 1, 3].any()  # never annotated
    assert 0 < table[:, 0, 1:].float().mean() < 1
    seen.clear()
    trainer.validation_step(batch)
    assert torch.equal(seen[0], torch.tensor([[True] * 4, [True, True, True, False]]))


def test_dropout_of_one_label_by_its_name(place):
    class Dropping(ours.nnUNetTrainerPartialLabels):
        p_drop = {"LA": 1.0}  # noqa: RUF012 - what a user writes

    trainer = make(place, Dropping)
    trainer.initialize()
    with trainer.knowing({"keys": ["A_0"]}, drop=True) as annotated:
        assert annotated.tolist() == [[True, True, True, False]]
    Dropping.p_drop = {"LAA": 1.0}
    with pytest.raises(ValueError, match="p_drop: there is no label 'LAA'; did you mean 'LA'"):
        make(place, Dropping).initialize()


def test_the_checkpoint_is_nnunets_and_training_goes_on_from_it(place):
    seed()
    trainer = make(place)
    trainer.save_every = 1
    trainer.num_epochs = 3
    end = trainer.on_epoch_end

    def end_and_stop():
        end()
        if trainer.current_epoch == 2:
            raise KeyboardInterrupt

    trainer.on_epoch_end = end_and_stop
    with pytest.raises(KeyboardInterrupt):
        trainer.run_training()
    latest = (
        place / "results" / DATASET / "nnUNetTrainerPartialLabels__nnUNetPlans__3d_fullres/fold_0/checkpoint_latest.pth"
    )
    plain = make(place, stock.nnUNetTrainer)
    plain.load_checkpoint(str(latest))
    plain.save_checkpoint(str(place / "plain.pth"))
    saved = torch.load(latest, weights_only=False)
    assert set(saved) == set(torch.load(place / "plain.pth", weights_only=False))
    assert "labeldrop" not in repr(saved)
    resumed = make(place, resume=True)
    resumed.num_epochs = 3
    resumed.load_checkpoint(str(latest))
    assert resumed.current_epoch == 2
    for key, value in trainer.network.state_dict().items():
        torch.testing.assert_close(resumed.network.state_dict()[key], value)
    resumed.run_training()
    assert len(resumed.logger.get_value("train_losses", None)) == 3


def test_the_cascade(place):
    """Two stages of one resolution: predictions of the first are inputs of the second."""
    path = place / "preprocessed" / DATASET / "nnUNetPlans.json"
    configurations = json.loads(path.read_text())["configurations"]
    configurations["3d_lowres"] = {"inherits_from": "3d_fullres", "next_stage": "3d_cascade_fullres"}
    configurations["3d_cascade_fullres"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
    edit(path, configurations=configurations)
    first = make(place, configuration="3d_lowres", fold="all")
    first.num_epochs = first.num_iterations_per_epoch = 1
    first.run_training()
    first.perform_actual_validation()
    summary = json.loads((place / "results" / DATASET / (
        "nnUNetTrainerPartialLabels__nnUNetPlans__3d_lowres/fold_all/validation/summary.json"
    )).read_text())  # fmt: skip
    assert [summary["mean"][label]["n_cases"] <= limit for label, limit in (("1", 12), ("2", 12), ("3", 6))] == [
        True
    ] * 3
    scored = {case["prediction_file"].rpartition("/")[2][0] for case in summary["metric_per_case"]
              if not np.isnan(case["metrics"]["3"]["n_ref"])}  # fmt: skip
    assert scored == {"A"}
    second = make(place, configuration="3d_cascade_fullres", fold="all")
    second.num_epochs = second.num_iterations_per_epoch = 1
    second.run_training()
    assert second.num_input_channels == 1 + 3
    assert np.isfinite(second.logger.get_value("train_losses", 0))


def test_an_ignore_label(place):
    for part in ("raw", "preprocessed"):
        edit(place / part / DATASET / "dataset.json", labels={**LABELS, "ignore": 4})
    trainer = make(place)
    trainer.initialize()
    data = torch.zeros(2, 1, *trainer.configuration_manager.patch_size)
    with torch.no_grad():
        targets = [torch.full((2, 1, *each.shape[2:]), 4, dtype=torch.int16) for each in trainer.network(data)]
    result = trainer.validation_step({"data": data, "target": targets, "keys": ["A_0", "B_0"]})
    assert result["loss"] == 0
    assert not any(result[key].any() for key in ("tp_hard", "fp_hard", "fn_hard"))


def test_a_dataset_json_that_says_nothing_has_every_label_and_the_log_says_so(place):
    for part in ("raw", "preprocessed"):
        edit(place / part / DATASET / "dataset.json", annotated_labels=None)
    trainer = make(place)
    trainer.initialize()
    assert trainer.annotations.incomplete == []
    log = next(Path(trainer.output_folder).glob("training_log*.txt")).read_text()
    assert "has no annotated_labels, so every label counts as annotated in every case" in log


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"annotated_labels": []}, r"dataset\.json: annotated_labels must be a table of cases, .* got \[\]"),
        ({"annotated_labels": {"B_00": ["LV"]}}, r"there is no case 'B_00'; did you mean 'B_0'\?"),
        ({"annotated_labels": {"B_0": ["LVMM"]}}, r"there is no label 'LVMM'; did you mean 'LVM'\? \(case 'B_0'"),
        ({"annotated_labels": {"B_0": "LV"}}, r"case 'B_0' must have a list of names of labels, got 'LV'"),
        ({"labels": {"background": 0, "heart": [1, 2], "LVM": 2}}, r"'heart' is a region.*each structure one value"),
        ({"labels": {"background": 0, "LV": 1, "LA": 3}}, r"labels must have the values 0 .*without a gap"),
    ],
)  # fmt: skip
def test_what_dataset_json_may_not_say(place, keys, message):
    for part in ("raw", "preprocessed"):
        edit(place / part / DATASET / "dataset.json", regions_class_order=[1, 2], **keys)
    with pytest.raises(AnnotationError, match=f"(?s){message}"):
        make(place).initialize()


def test_the_copy_that_nnunet_trains_with_has_to_be_the_same(place):
    edit(place / "raw" / DATASET / "dataset.json", annotated_labels={"A_0": WITHOUT})
    with pytest.raises(AnnotationError, match=r"not the same in .*raw.* and in .*preprocessed.*annotate Dataset007"):
        make(place).initialize()
    shutil.rmtree(place / "raw")  # on another machine
    make(place).initialize()


def test_with_another_trainer_of_nnunet(place):
    from nnunetv2.training.nnUNetTrainer.variants.network_architecture.nnUNetTrainerNoDeepSupervision import (
        nnUNetTrainerNoDeepSupervision,
    )

    class Both(ours.nnUNetTrainerPartialLabels, nnUNetTrainerNoDeepSupervision):
        pass

    trainer = make(place, Both)
    trainer.run_training()
    assert np.isfinite(trainer.logger.get_value("val_losses", None)).all()


def predictions(place, trainer_name, change=lambda labels: labels):
    """Of a model that was never trained: the truth of fold 0, with LA at one place in every case, changed."""
    model = place / "results" / DATASET / f"{trainer_name}__nnUNetPlans__2d"
    folder = model / "fold_0" / "validation"
    folder.mkdir(parents=True)
    planned = place / "preprocessed" / DATASET
    shutil.copy(planned / "nnUNetPlans.json", model / "plans.json")
    shutil.copy(planned / "dataset.json", model)
    for path in sorted((planned / "gt_segmentations").glob("*.nii.gz")):
        image = nibabel.load(path)
        labels = np.asarray(image.dataobj).T.copy()
        labels[9:12, 4:9, 5:11] = 3  # as `volume` draws it
        nibabel.save(nibabel.Nifti1Image(change(labels).T, image.affine), folder / path.name)
    return model


def test_the_best_configuration_is_chosen_by_what_was_annotated(place, capsys):
    """One model finds LA in every case; the other one never does so in B, and LV in none."""
    from nnunetv2.evaluation.find_best_configuration import find_best_configuration

    from labeldrop_bench.integrations.nnunet.command import main

    predictions(place, "nnUNetTrainerPartialLabels")
    predictions(place, "nnUNetTrainer", lambda labels: np.where(labels == 1, 0, labels))
    arguments = ["-tr", "nnUNetTrainerPartialLabels", "nnUNetTrainer", "-c", "2d", "-f", "0", "--disable_ensembling"]
    assert main(["find-best-configuration", "7", *arguments]) == 0
    assert "*Best*: nnUNetTrainerPartialLabels__nnUNetPlans__2d: 1.0" in capsys.readouterr().out
    merged = place / "results" / DATASET / "nnUNetTrainerPartialLabels__nnUNetPlans__2d" / "crossval_results_folds_0"
    summary = json.loads((merged / "summary.json").read_text())
    assert [summary["mean"][label]["n_cases"] for label in "123"] == [12, 12, 6]
    assert summary["foreground_mean"]["Dice"] == 1
    models = [{"plans": "nnUNetPlans", "configuration": "2d", "trainer": "nnUNetTrainerPartialLabels"}]
    find_best_configuration(7, models, allow_ensembling=False, folds=(0,))  # nnU-Net's own counts LA in B as wrong
    summary = json.loads((merged / "summary.json").read_text())
    assert summary["mean"]["3"]["Dice"] == 0.5
    assert "n_cases" not in summary["mean"]["3"]


def test_a_class_that_no_case_scores_leaves_the_mean_to_the_others(place, capsys):
    from labeldrop_bench.integrations.nnunet.command import main

    predictions(place, "nnUNetTrainerPartialLabels")
    raw, copy = (place / part / DATASET / "dataset.json" for part in ("raw", "preprocessed"))
    cases = json.loads(raw.read_text())["annotated_labels"] | {f"A_{number}": ["LV", "LVM"] for number in range(6)}
    for path in (raw, copy):
        edit(path, annotated_labels=cases)
    arguments = ["-tr", "nnUNetTrainerPartialLabels", "-c", "2d", "-f", "0"]
    assert main(["find-best-configuration", DATASET, *arguments]) == 0
    assert "*Best*: nnUNetTrainerPartialLabels__nnUNetPlans__2d: 1.0" in capsys.readouterr().out


def test_find_best_configuration_says_what_is_missing(place, capsys):
    from labeldrop_bench.integrations.nnunet.command import main

    assert main(["find-best-configuration", "-tr", "nnUNetTrainer"]) == 2
    assert "give the data set first" in capsys.readouterr().err
    assert main(["find-best-configuration", "8"]) == 2
    assert "Could not find a dataset with the ID 8" in capsys.readouterr().err
