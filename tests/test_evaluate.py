from __future__ import annotations

import dataclasses

import pytest
import torch
from lightning_fabric import Fabric
from tiny import discs, run_config

from labeldrop_bench import evaluate, metrics, train
from labeldrop_bench.data.base import IGNORED, Dataset
from labeldrop_bench.evaluate import Predictor


def _predictor(network: torch.nn.Module, dataset: Dataset, fabric: Fabric) -> Predictor:
    return dataclasses.replace(train.make_learner(run_config(), dataset, fabric).predictor, network=network)


def test_rows_average_only_what_is_defined(fabric: Fabric) -> None:
    dataset, config = discs(n=3), run_config()
    test = dataset.test
    truth, known = test.truth.clone(), test.known.clone()
    truth[0][truth[0] == 2] = 0  # no "dark" in the first image of A, and none predicted: not a number
    known[2, 2] = False  # no ground truth of "dark" in the third image of A: not counted
    known[3:, 2] = False  # nor in any of B: no row
    dataset = dataclasses.replace(dataset, test=dataclasses.replace(test, truth=truth, known=known))
    prediction = truth.long().clone()
    prediction[1] = 0  # everything missed in the second image of A

    class Given(torch.nn.Module):
        def forward(self, _: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.one_hot(prediction, 3).movedim(-1, 1).float()

    rows, cases = evaluate.score(_predictor(Given(), dataset, fabric), dataset, config)
    assert {(r.domain, r.class_): (r.value, r.n) for r in rows} == {
        ("A", "bright"): (pytest.approx(2 / 3), 3), ("A", "dark"): (0.0, 1), ("B", "bright"): (1.0, 3)
    }  # fmt: skip
    bright = [c.value for c in cases if c.class_ == "bright"]
    assert bright == [1.0, 0.0, 1.0, 1.0, 1.0, 1.0]
    dark = [(c.case, c.patient, c.domain, c.value) for c in cases if c.class_ == "dark"]
    assert dark == [("test-0", "test-0", "A", None), ("test-1", "test-1", "A", 0.0)]


def test_a_class_that_is_never_defined_has_a_row_without_a_value(fabric: Fabric) -> None:
    dataset, config = discs(n=2), run_config()
    empty = dataclasses.replace(dataset.test, truth=torch.zeros_like(dataset.test.truth))
    dataset = dataclasses.replace(dataset, test=empty)

    class Nothing(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.eye(3)[0].view(1, 3, 1, 1).expand(len(images), 3, *images.shape[2:])

    rows, cases = evaluate.score(_predictor(Nothing(), dataset, fabric), dataset, config)
    assert {case.value for case in cases} == {None}
    assert {(row.value, row.n) for row in rows} == {(None, 0)}


def test_validation_counts_only_what_is_annotated(fabric: Fabric) -> None:
    dataset = discs(n=2)
    truth = dataset.validation.truth

    class Right(torch.nn.Module):
        def forward(self, _: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.one_hot(truth.long(), 3).movedim(-1, 1).float()

    assert evaluate.validate(_predictor(Right(), dataset, fabric), dataset.validation, dataset.label_space) == (1, 1)
    # the same prediction would be punished if the undrawn class were counted in B
    unfair = metrics.dice_per_image(truth, dataset.validation.target, 3)[:, 1:].nanmean()
    assert unfair < 0.9


def test_validation_sees_what_was_drawn_and_the_truth_apart(fabric: Fabric) -> None:
    dataset = discs(n=2)
    validation = dataset.validation
    wrong = validation.target.clone()
    wrong[validation.target == 1] = 0  # the annotator missed all of "bright" ...
    wrong[:, 0, 0] = IGNORED  # ... and this pixel says nothing
    dataset = dataclasses.replace(dataset, validation=dataclasses.replace(validation, target=wrong))

    class Right(torch.nn.Module):
        def forward(self, _: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.one_hot(validation.truth.long(), 3).movedim(-1, 1).float()

    drawn, truth = evaluate.validate(_predictor(Right(), dataset, fabric), dataset.validation, dataset.label_space)
    assert (drawn, truth) == (0.5, 1.0)  # "bright" 0 and "dark" 1


def test_predictions_are_made_in_portions(fabric: Fabric, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = discs()
    predictor = train.make_learner(run_config(), dataset, fabric).predictor
    at_once = predictor.classes(dataset.train.images)
    assert len(evaluate.chunks(dataset.train.images)) == 1
    monkeypatch.setattr(evaluate, "IMAGES_AT_ONCE", 5)
    assert [len(c) for c in evaluate.chunks(dataset.train.images)] == [5, 5, 2]
    assert torch.equal(predictor.classes(dataset.train.images), at_once)
    assert [len(c) for c in evaluate.chunks(torch.zeros(2, 1, 4, 4, 4))] == [1, 1]
