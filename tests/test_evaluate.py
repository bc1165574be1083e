from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from tiny import discs, run_config

from labeldrop_bench import evaluate, losses, metrics, train
from labeldrop_bench.cost import LiveBytes
from labeldrop_bench.data.arrays import LabelMaps
from labeldrop_bench.data.base import IGNORED, Dataset, Samples
from labeldrop_bench.evaluate import Predictor
from labeldrop_bench.label_space import LabelSpace
from labeldrop_bench.patches import make_patches
from labeldrop_bench.records import METRICS, PatchConfig, RunResult, ScoringConfig, StepCost, disagreements


def _predictor(network: torch.nn.Module, dataset: Dataset, fabric: Fabric) -> Predictor:
    return dataclasses.replace(train.make_learner(run_config(), dataset, fabric).predictor, network=network)


def test_rows_average_only_what_is_defined(fabric: Fabric) -> None:
    dataset, config = discs(n=3), run_config()
    test = dataset.test
    truth, known = test.truth[:], test.known.clone()
    truth[0][truth[0] == 2] = 0  # no "dark" in the first image of A, and none predicted: not a number
    known[2, 2] = False  # no ground truth of "dark" in the third image of A: not counted
    known[3:, 2] = False  # nor in any of B: no score
    dataset = dataclasses.replace(dataset, test=dataclasses.replace(test, truth=LabelMaps.of(truth), known=known))
    prediction = truth.long().clone()
    prediction[1] = 0  # everything missed in the second image of A

    class Given(torch.nn.Module):
        def forward(self, _: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.one_hot(prediction, 3).movedim(-1, 1).float()

    rows, cases, _ = evaluate.score(_predictor(Given(), dataset, fabric), dataset, config)
    assert all(row.metric not in METRICS for row in rows if (row.domain, row.class_) == ("B", "dark"))
    assert {(r.domain, r.class_): (r.value, r.n) for r in rows if r.metric == "dice"} == {
        ("A", "bright"): (pytest.approx(2 / 3), 3), ("A", "dark"): (0.0, 1), ("B", "bright"): (1.0, 3)
    }  # fmt: skip
    bright = [c.dice for c in cases if c.class_ == "bright"]
    assert bright == [1.0, 0.0, 1.0, 1.0, 1.0, 1.0]
    dark = [(c.case, c.patient, c.domain, c.dice) for c in cases if c.class_ == "dark" and c.scored]
    assert dark == [("test-0", "test-0", "A", None), ("test-1", "test-1", "A", 0.0)]


class Discs(torch.nn.Module):
    """Predicts given class maps [n, H, W]."""

    def __init__(self, prediction: torch.Tensor) -> None:
        super().__init__()
        self.prediction = prediction.long()

    def forward(self, _: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot(self.prediction, 3).movedim(-1, 1).float()


@pytest.mark.parametrize("false_positives", [0, 9])
def test_a_class_that_no_truth_of_a_domain_shows_is_left_out_whatever_is_predicted(
    false_positives: int, fabric: Fabric
) -> None:
    dataset, config = discs(n=2), run_config()
    truth = dataset.test.truth[:]
    truth[2:][truth[2:] == 2] = 0  # no "dark" in B
    dataset = dataclasses.replace(dataset, test=dataclasses.replace(dataset.test, truth=LabelMaps.of(truth)))
    prediction = truth.clone()
    prediction[2, 0, :false_positives] = 2
    rows, cases, _ = evaluate.score(_predictor(Discs(prediction), dataset, fabric), dataset, config)
    scores = {(row.domain, row.class_, row.metric): (row.value, row.n) for row in rows if row.metric in METRICS}
    assert len(scores) == 2 * 2 * len(METRICS)
    assert {scores["B", "dark", metric] for metric in METRICS} == {(None, 0)}
    assert all(n == 2 for place, (_, n) in scores.items() if place[:2] != ("B", "dark"))
    assert [(case.scored, case.size) for case in cases if (case.domain, case.class_) == ("B", "dark")] == [
        (False, false_positives), (False, 0)
    ]  # fmt: skip


def test_what_is_predicted_is_recorded_also_where_nobody_knows_the_truth(fabric: Fabric) -> None:
    dataset, config = discs(n=3), run_config()
    known = dataset.test.known.clone()
    known[3:, 2] = False  # "dark" in B, where it is not annotated
    dataset = dataclasses.replace(dataset, test=dataclasses.replace(dataset.test, known=known))
    prediction = torch.zeros_like(dataset.test.truth[:])
    # "dark" in A: 20, 40, 60 pixels, so 4 make a presence; in B: 3, 4, none
    for image, size in enumerate((20, 40, 60, 3, 4, 0)):
        prediction[image].view(-1)[:size] = 2
    rows, cases, _ = evaluate.score(_predictor(Discs(prediction), dataset, fabric), dataset, config)
    found = {(row.domain, row.class_, row.metric): (row.value, row.n, row.annotated) for row in rows}
    assert found["A", "dark", "presence"] == (1.0, 3, True)
    assert found["A", "dark", "size"] == (40.0, 3, True)
    assert found["B", "dark", "presence"] == (pytest.approx(1 / 3), 3, False)
    assert found["B", "dark", "size"] == (4.0, 1, False)
    assert found["A", "bright", "size"] == (None, 0, True)
    assert not any(("B", "dark", metric) in found for metric in METRICS)
    dark = [(case.size, case.scored) for case in cases if case.class_ == "dark"]
    assert dark == [(20, True), (40, True), (60, True), (3, False), (4, False), (0, False)]
    result = RunResult(
        run=config.run, rows=tuple(rows), best_epoch=1, validation_dice=0.0, seconds=0.0, split="", environment={},
        cost=StepCost(seconds=0, peak_bytes=0, rounds=1, shape=(1,)),
    )  # fmt: skip
    assert disagreements(config, result, cases) == []
    wrong = [row.model_copy(update={"value": 0.5}) if row.metric == "presence" else row for row in rows]
    assert len(disagreements(config, result.model_copy(update={"rows": tuple(wrong)}), cases)) == 4


def test_validation_counts_only_what_is_annotated(fabric: Fabric) -> None:
    dataset = discs(n=2)
    truth = dataset.validation.truth[:]

    class Right(torch.nn.Module):
        def forward(self, _: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.one_hot(truth.long(), 3).movedim(-1, 1).float()

    assert evaluate.validate(_predictor(Right(), dataset, fabric), dataset.validation, dataset.label_space) == (1, 1)
    # the same prediction would be punished if the unannotated class were counted in B
    unfair = metrics.dice_per_image(truth, dataset.validation.target[:], 3)[:, 1:].nanmean()
    assert unfair < 0.9


def test_validation_sees_what_is_annotated_and_the_truth_apart(fabric: Fabric) -> None:
    dataset = discs(n=2)
    validation = dataset.validation
    wrong = validation.target[:]
    wrong[validation.target[:] == 1] = 0  # the annotator missed all of "bright" ...
    wrong[:, 0, 0] = IGNORED  # ... and this pixel says nothing
    dataset = dataclasses.replace(dataset, validation=dataclasses.replace(validation, target=LabelMaps.of(wrong)))

    class Right(torch.nn.Module):
        def forward(self, _: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.one_hot(validation.truth[:].long(), 3).movedim(-1, 1).float()

    annotated, truth = evaluate.validate(_predictor(Right(), dataset, fabric), dataset.validation, dataset.label_space)
    assert (annotated, truth) == (0.5, 1.0)  # "bright" 0 and "dark" 1


def test_predictions_are_made_in_portions(fabric: Fabric, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = discs()
    predictor = train.make_learner(run_config(), dataset, fabric).predictor
    images = dataset.train.images
    (at_once,) = predictor.classes(images)
    assert len(evaluate.portions(images)) == 1
    monkeypatch.setattr(evaluate, "IMAGES_AT_ONCE", 5)
    assert [len(images[part]) for part in evaluate.portions(images)] == [5, 5, 2]
    assert torch.equal(torch.cat([*predictor.classes(images)]), at_once)
    assert evaluate.portions(torch.zeros(2, 1, 4, 4, 4)) == [slice(0, 1), slice(1, 2)]
    assert evaluate.portions(torch.zeros(1, 1, 1024, 512).expand(5, -1, -1, -1))[1:] == [slice(2, 4), slice(4, 6)]


@pytest.mark.parametrize("loss", ["ce", "adaptive_bce", "label_flip"])
@pytest.mark.parametrize("depth", [None, 6])
def test_large_images_are_looked_at_in_strips(
    loss: str, depth: int | None, fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, config = discs(n=2, depth=depth), run_config({"name": "it", "loss": loss})
    predictor = train.make_learner(config, dataset, fabric).predictor
    predictor.network.eval()
    images, truth = dataset.test.images[:1], dataset.test.truth[:1]
    at_once = predictor.measured(images, truth, 3, 15, lambda _: None)
    assert at_once[0].shape == truth.shape
    assert at_once[0].dtype == torch.uint8
    monkeypatch.setattr(evaluate, "STRIP", predictor.loss.out_channels * 16 * (3 if depth is None else 4 * 16))
    cuts = evaluate.strips(predictor.logits(images))
    assert [len(truth[0, cut]) for cut in cuts] == ([3, 3, 3, 3, 3, 1] if depth is None else [4, 2])
    in_strips = predictor.measured(images, truth, 3, 15, lambda _: None)
    assert torch.equal(in_strips[0], at_once[0])
    assert torch.equal(next(iter(predictor.classes(images))), at_once[0])
    for one, other in zip(in_strips[1:], at_once[1:], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=0, equal_nan=True)  # float64 sums in another order


@pytest.mark.parametrize("loss", ["ce", "adaptive_bce", "label_flip"])
def test_predictions_take_little_more_memory_than_the_logits(
    loss: str, fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred classes of a volume are gigabytes: the logits are held once, and nothing else has as many numbers."""
    monkeypatch.setattr(evaluate, "STRIP", 1 << 16)
    space = LabelSpace.of_classes(60)
    made = losses.create(loss, label_space=space)
    network = torch.nn.Conv3d(1, made.out_channels, 1)
    predictor = Predictor(network, made, make_patches(PatchConfig()), fabric)
    images, truth = torch.randn(1, 1, 24, 24, 24), torch.randint(60, (1, 24, 24, 24)).to(torch.uint8)
    logits = 4 * made.out_channels * 24**3
    with LiveBytes() as live:
        predictor.measured(images, truth, 60, 15, lambda _: None)
    assert logits < live.peak < 1.3 * logits
    with LiveBytes() as live:
        list(predictor.classes(images.repeat(3, 1, 1, 1, 1)))  # one after the other
    assert logits < live.peak < 1.3 * logits


def test_the_mean_of_the_views_is_one(fabric: Fabric) -> None:
    """Slabs have three."""
    volumes = torch.randn(2, 1, 3, 4, 5)
    predictor = _predictor(torch.nn.Identity(), discs(n=1), fabric)

    class Three:
        def views(self, network: object, images: torch.Tensor) -> list[torch.Tensor]:
            return [images, 2 * images, 6 * images]

    mean = dataclasses.replace(predictor, patches=Three()).logits(volumes)  # type: ignore[arg-type]
    torch.testing.assert_close(mean, 3 * volumes)


@pytest.mark.parametrize("depth", [None, 3])
def test_every_image_is_scored_against_its_own_truth(
    depth: int | None, fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "IMAGES_AT_ONCE", 4)
    dataset = discs(n=3, depth=depth)
    test = dataset.test

    class Sees(torch.nn.Module):
        """Right in every image by the image alone: noise is far below the level of a disc."""

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.cat([torch.ones_like(images), images, -images], 1)

    values = evaluate.measure(_predictor(Sees(), dataset, fabric), test, dataset.label_space, ScoringConfig())
    for metric, best in {"dice": 1, "hd95": 0, "nsd": 1}.items():
        assert values[metric].shape == (6, 3)
        assert values[metric][:, 1:].nanmean() == pytest.approx(best, abs=0.05), metric
    assert (values["dice"][:, 1:] > 0.9).all()


class Constant(torch.nn.Module):
    """The same logits everywhere, more of the second class in brighter pixels."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.zeros_like(images), images, -torch.ones_like(images)], 1)


@pytest.mark.parametrize("loss", ["ce", "adaptive_bce", "label_flip"])
def test_probabilities_are_scored_without_background(loss: str, fabric: Fabric) -> None:
    """One class against the rest: the Brier score by hand, for losses whose probabilities have other channels."""
    dataset = discs(n=2)
    config = run_config({"name": "it", "loss": loss})
    learner = train.make_learner(config, dataset, fabric)
    width = learner.loss.out_channels

    class Fits(Constant):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            logits = super().forward(images)
            return torch.cat([logits, logits], 1)[:, :width]

    predictor = dataclasses.replace(learner.predictor, network=Fits())
    values = evaluate.measure(predictor, dataset.test, dataset.label_space, config.scoring)
    p = learner.loss.probabilities(Fits()(dataset.test.images[:]))[:, -2:]
    for c in (1, 2):
        wrong = (p[:, c - 1].double() - (dataset.test.truth[:] == c).double()).square().flatten(1).mean(1)
        torch.testing.assert_close(values["brier"][:, c], wrong)


def _apart(samples: Samples, *spacings: tuple[float, ...]) -> Samples:
    """With a spacing for each image, in turns."""
    rows = [spacings[i % len(spacings)] for i in range(len(samples))]
    return dataclasses.replace(samples, spacing=torch.tensor(rows, dtype=torch.float64))


@pytest.mark.parametrize(
    ("spacings", "unit", "pixel"),
    [
        ([(3.0, 0.5)], "mm", 0.5),
        ([(math.nan, math.nan)], "pixels", 1),
        ([(3.0, 0.5), (math.nan, math.nan)], "pixels, since the spacing of some images is not known", 1),
    ],
)
def test_distances_are_in_millimetres_where_every_spacing_is_known(
    spacings: list[tuple[float, ...]], unit: str, pixel: float, fabric: Fabric
) -> None:
    dataset = discs(n=2)
    test = _apart(dataset.test, *spacings)
    shifted = test.truth[:].roll(1, -1).long()  # by a column

    class Shifted(torch.nn.Module):
        def forward(self, _: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.one_hot(shifted, 3).movedim(-1, 1).float()

    predictor = _predictor(Shifted(), dataset, fabric)
    assert evaluate.distance_unit(test) == unit
    found = evaluate.measure(predictor, test, dataset.label_space, ScoringConfig(tolerance=0.75))
    hd95 = found["hd95"][:, 1:]
    assert (hd95[~hd95.isnan()] == pixel).all()
    assert bool((found["nsd"][:, 1:].nan_to_num(1) == 1).all()) == (pixel < 0.75)  # the tolerance is in the same unit


def test_each_class_has_its_tolerance(fabric: Fabric) -> None:
    dataset = discs(n=2)
    shifted = dataset.test.truth[:].roll(2, -1).long()

    class Shifted(torch.nn.Module):
        def forward(self, _: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.one_hot(shifted, 3).movedim(-1, 1).float()

    predictor = _predictor(Shifted(), dataset, fabric)

    def nsd(**scoring: object) -> torch.Tensor:
        of = ScoringConfig.model_validate(scoring)
        return evaluate.measure(predictor, dataset.test, dataset.label_space, of)["nsd"][:, 1:].nanmean(0)

    assert (nsd(tolerance=0.5) < 0.9).all()
    assert (nsd(tolerance=30) == 1).all()
    dark_is_lenient = nsd(tolerance=0.5, tolerances={"dark": 30})
    assert dark_is_lenient[1] == 1
    assert dark_is_lenient[0] < 0.9
    with pytest.raises(ValueError, match="tolerances: there is no class 'drak'; did you mean 'dark'"):
        evaluate.check_scoring(ScoringConfig(tolerances={"drak": 1.0}), dataset.label_space)


def test_examples_show_the_first_images_of_each_domain(fabric: Fabric, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = discs(n=3)
    config = run_config({"name": "it", "loss": "label_flip"}, scoring={"examples": 2})
    predictor = train.make_learner(config, dataset, fabric).predictor
    monkeypatch.setattr(evaluate, "IMAGES_AT_ONCE", 4)  # one of them is not in the first portion
    _, _, examples = evaluate.score(predictor, dataset, config)
    assert [(e.case, e.domain) for e in examples] == [
        ("test-0", "A"), ("test-1", "A"), ("test-3", "B"), ("test-4", "B")
    ]  # fmt: skip
    first = examples[0]
    np.testing.assert_array_equal(first.truth, dataset.test.truth[0].numpy())
    np.testing.assert_array_equal(first.prediction, next(predictor.classes(dataset.test.images[:1]))[0].numpy())
    assert (first.image.min(), first.image.max()) == (0, 255)
    flips = predictor.loss.flip_probability(predictor.logits(dataset.test.images[:1]))[0].amax(0)
    np.testing.assert_allclose(first.maps["flip probability"] / 255, flips.numpy(), atol=0.5 / 255 + 1e-6)
    assert evaluate.score(predictor, dataset, run_config(scoring={"examples": 0}))[2] == []
    plain = train.make_learner(run_config(), dataset, fabric).predictor
    assert evaluate.score(plain, dataset, run_config(scoring={"examples": 1}))[2][0].maps == {}


def test_an_example_of_a_volume_is_its_middle_slice() -> None:
    volume = torch.arange(5 * 2 * 3).view(5, 2, 3)
    np.testing.assert_array_equal(evaluate._slice(volume), volume[2].numpy())
