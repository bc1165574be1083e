"""SMILEr: which pixels become positive, which stay open, and that it goes on where it was broken off."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from tiny import discs, run_config, same_weights
from torch import Tensor

from labeldrop_bench import losses, procedures, train
from labeldrop_bench.checkpoints import Epoch
from labeldrop_bench.cost import LiveBytes
from labeldrop_bench.data.arrays import Images
from labeldrop_bench.data.base import IGNORED, Dataset, make_samples
from labeldrop_bench.evaluate import Predictor
from labeldrop_bench.label_space import Label, LabelSpace
from labeldrop_bench.procedures import smiler
from labeldrop_bench.procedures.smiler import Options, labelled, positives, with_self_made_labels

SPACE = LabelSpace.of_classes(("background", "a", "b"))


class Given(torch.nn.Module):
    """A "network" whose logits are the image's channels."""

    def forward(self, images: Tensor) -> Tensor:
        return images


def one_row(probability: Tensor, target: list[int], annotated: list[bool], space: LabelSpace = SPACE) -> Dataset:
    """A data set whose images, of one row, are the logits of a probability [K - 1, width]."""
    images = probability.logit()[None, :, None].float()
    labels = torch.tensor(target, dtype=torch.uint8)[None, None]
    table = torch.tensor([annotated])

    def split(name: str) -> Any:
        return make_samples(space, images, labels, table, torch.tensor([0]), [name], [name])

    return Dataset(space, ("A",), split("train"), split("validation"), split("test"))


def predictor(dataset: Dataset, fabric: Fabric) -> Predictor:
    config = run_config({"name": "smile", "loss": "smile"})
    return dataclasses.replace(train.make_learner(config, discs(), fabric).predictor, network=Given())


P_A = torch.tensor([0.6, 0.95, 0.7, 0.3, 0.8, 0.55])
P_B = torch.tensor([0.1, 0.2, 0.9, 0.1, 0.6, 0.51])


def make(dataset: Dataset, share: float, fabric: Fabric, **options: Any) -> tuple[list[int], list[bool]]:
    """Target and annotated of the one training image after a round."""
    samples = labelled(dataset, predictor(dataset, fabric), share, Options(**options))
    return samples.target[:].flatten().tolist(), samples.annotated[0].tolist()


def test_the_most_certain_share_of_a_missing_class_becomes_a_label_of_its_own(fabric: Fabric) -> None:
    dataset = with_self_made_labels(one_row(torch.stack([P_A, P_B]), [0] * 6, [True, False, True]))
    assert [label.name for label in dataset.label_space.labels[3:]] == ["a (self-made)", "b (self-made)"]
    assert [(set(label.classes), label.exhaustive) for label in dataset.label_space.labels[3:]] == [
        ({1}, False), ({2}, False)
    ]  # fmt: skip
    # of "a" the pixels 0, 1, 2, 4 and 5 are predicted; "b" is annotated here, so nothing of it is made
    assert make(dataset, 0.2, fabric) == ([0, 3, 0, 0, 0, 0], [True, False, True, True, False])
    assert make(dataset, 0.4, fabric)[0] == [0, 3, 0, 0, 3, 0]
    assert make(dataset, 0.41, fabric)[0] == [0, 3, 3, 0, 3, 0]  # rounded up to whole pixels
    assert make(dataset, 1.0, fabric)[0] == [3, 3, 3, 0, 3, 3]


def test_what_is_labelled_or_ignored_is_never_taken_and_all_labels_stay(fabric: Fabric) -> None:
    dataset = with_self_made_labels(one_row(torch.stack([P_A, P_B]), [0, 2, IGNORED, 2, 0, 0], [True, False, True]))
    assert make(dataset, 1.0, fabric)[0] == [3, 2, IGNORED, 2, 3, 3]
    everything = with_self_made_labels(one_row(torch.stack([P_A, P_B]), [0] * 6, [True, True, True]))
    assert make(everything, 1.0, fabric) == ([0] * 6, [True, True, True, False, False])


def test_a_pixel_that_two_classes_claim_goes_to_the_likelier_one(fabric: Fabric) -> None:
    dataset = with_self_made_labels(one_row(torch.stack([P_A, P_B]), [0] * 6, [True, False, False]))
    assert make(dataset, 1.0, fabric) == ([3, 3, 4, 0, 3, 3], [True, False, False, True, True])
    # Only what a class's own ranking takes is a claim: pixel 2 is the third of "a", and the first of "b"
    assert make(dataset, 0.3, fabric)[0] == [0, 3, 4, 0, 3, 0]


def test_positives_of_earlier_rounds_stay(fabric: Fabric) -> None:
    first = with_self_made_labels(one_row(torch.stack([P_A, P_B]), [0] * 6, [True, False, True]))
    made = labelled(first, predictor(first, fabric), 0.4, Options())
    assert made.target[:].flatten().tolist() == [0, 3, 0, 0, 3, 0]
    # the next model thinks otherwise
    images = torch.stack([1 - P_A, P_B]).logit()[None, :, None].float()
    second = dataclasses.replace(first, train=dataclasses.replace(made, images=Images.of(images)))
    assert make(second, 1.0, fabric)[0] == [0, 3, 0, 3, 3, 0]


def test_a_super_label_covers_its_classes(fabric: Fabric) -> None:
    """Where it is annotated, background is none of its classes, so none of them is made."""
    labels = (*SPACE.labels, Label("a or b", frozenset({1, 2})))
    space = LabelSpace(SPACE.classes, labels)
    annotated = [True, False, False, True]
    dataset = with_self_made_labels(one_row(torch.stack([P_A, P_B]), [0, 3, 3, 0, 0, 0], annotated, space))
    assert make(dataset, 1.0, fabric) == ([0, 3, 3, 0, 0, 0], [*annotated, False, False])
    scribble = LabelSpace(SPACE.classes, (*SPACE.labels, Label("scribble", frozenset({1}), exhaustive=False)))
    dataset = with_self_made_labels(one_row(torch.stack([P_A, P_B]), [0, 3, 0, 0, 0, 0], annotated, scribble))
    assert make(dataset, 1.0, fabric)[0] == [4, 3, 5, 0, 4, 4]


def test_the_deviation_ranks_by_how_little_the_passes_differ(fabric: Fabric, monkeypatch: pytest.MonkeyPatch) -> None:
    class Shaky(torch.nn.Module):
        """The noise grows along the row, and is there only where dropout is."""

        def __init__(self) -> None:
            super().__init__()
            self.dropout = torch.nn.Dropout2d(0.5)
            self.norm = torch.nn.BatchNorm2d(2)

        def forward(self, images: Tensor) -> Tensor:
            assert not self.norm.training
            noise = torch.randn(6) * torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])
            return images + noise * self.dropout.training

    certain = torch.tensor([0.6, 0.7, 0.8, 0.9, 0.95, 0.99])  # the other way round than by score
    dataset = with_self_made_labels(one_row(torch.stack([certain, P_B]), [0] * 6, [True, False, True]))
    given = dataclasses.replace(predictor(dataset, fabric), network=Shaky())
    options = Options(ranking="deviation", passes=50)
    torch.manual_seed(1)
    with LiveBytes() as live:
        probability, certainty = smiler.certainties(given, dataset.train.images[:], options)
    torch.testing.assert_close(probability[0, 0], certain)  # without dropout
    torch.manual_seed(1)
    torch.randn(6)  # of the probability above
    noise = torch.stack([torch.randn(6) for _ in range(50)]) * torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])
    by_hand = (certain.logit() + noise).sigmoid().std(0, correction=0)
    torch.testing.assert_close(certainty[0, 0], -by_hand, rtol=1e-4, atol=1e-6)  # float32 sums in another order
    assert live.peak < 20 * 4 * probability.numel()  # of 50 passes none is kept
    # sd of the probability is about p (1 - p) times that of the logit
    expected = -(certain * (1 - certain)) * torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])
    torch.testing.assert_close(certainty[0, 0], expected, rtol=0.5, atol=1e-3)
    assert certainty[0, 0, 0] == 0
    first = labelled(dataset, given, 0.1, options)
    assert first.target[:].flatten().tolist() == [3, 0, 0, 0, 0, 0]
    assert torch.equal(
        labelled(dataset, given, 0.5, options).target[:], labelled(dataset, given, 0.5, options).target[:]
    )
    by_score = labelled(dataset, given, 0.1, Options())
    assert by_score.target[:].flatten().tolist() == [0, 0, 0, 0, 0, 3]


def test_equal_certainty_takes_whole_pixels_and_no_more() -> None:
    probability = torch.full((1, 10), 0.9)
    made = positives(probability, torch.zeros(1, 10), torch.ones(10, dtype=torch.bool), [1], 0.35)
    assert made.tolist() == [1] * 4 + [0] * 6


@pytest.mark.parametrize("backend", ["fused", "reference"])
def test_with_the_smile_rule_only_what_is_self_made_counts_for_a_missing_class(backend: str) -> None:
    dataset = with_self_made_labels(one_row(torch.stack([P_A, P_B]), [0] * 6, [True, False, True]))
    loss = losses.create("smile", label_space=dataset.label_space, ignore_index=IGNORED, backend=backend)
    logits = torch.zeros(1, 2, 1, 6, requires_grad=True)
    target = torch.tensor([[[0, 3, 0, 2, IGNORED, 3]]])
    loss(logits, target, torch.tensor([[True, False, True, True, False]])).backward()
    assert logits.grad is not None
    a, b = logits.grad[0, :, 0].sign().int().tolist()
    # towards yes where it is self-made, towards no where another class is labelled, nothing anywhere else
    assert a == [0, -1, 0, 1, 0, -1]
    # the annotated class is as ever: yes where it is labelled, no elsewhere
    assert b == [1, 1, 1, -1, 0, 1]


def smiling(**options: Any) -> dict[str, Any]:
    return {"name": "smiler", "loss": "smile", "procedure": {"name": "smiler", **options}}


def test_rounds_take_growing_shares_and_start_from_fresh_weights(
    tmp_path: Path, fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares, first_losses = [], []
    honest = smiler.labelled

    def spy(dataset: Dataset, predictor: Predictor, share: float, options: Options) -> Any:
        shares.append(share)
        return honest(dataset, predictor, share, options)

    monkeypatch.setattr(smiler, "labelled", spy)
    config = run_config(smiling(rounds=3, gamma=0.6), training={"epochs": 2})
    procedure = procedures.make(config.strategy)
    assert procedure.fits == 4

    def on_epoch(row: Epoch) -> None:
        first_losses.append(row.epoch)

    procedure.train(config, discs(n=3), tmp_path, fabric, on_epoch)
    assert shares == pytest.approx([0.2, 0.4, 0.6])
    assert first_losses == [1, 2] * 4
    assert {path.parent.name for path in tmp_path.rglob("checkpoint.pt")} == {
        "round0", "round1", "round2", tmp_path.name
    }  # fmt: skip


def test_a_killed_one_goes_on_at_its_round(tmp_path: Path, fabric: Fabric) -> None:
    strategy = smiling(rounds=2, ranking="deviation", passes=3)
    config = run_config(strategy, training={"epochs": 2, "save_every": 1}, model={"dropout": 0.2})
    procedure, dataset = procedures.make(config.strategy), discs(n=3)
    whole = procedure.train(config, dataset, tmp_path / "whole", fabric, lambda _: None)
    seen: list[int] = []

    def on_epoch(row: Epoch) -> None:
        seen.append(row.epoch)
        if len(seen) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        procedure.train(config, dataset, tmp_path / "broken", fabric, on_epoch)
    assert (tmp_path / "broken" / "round1" / "last.pt").exists()
    resumed = procedure.train(config, dataset, tmp_path / "broken", fabric, on_epoch)
    assert seen == [1, 2, 1, 2, 2, 1, 2]  # two rounds, killed in the second's last epoch; that epoch; the third round
    assert same_weights(resumed, whole)
    assert (resumed.epoch, resumed.dice) == (whole.epoch, whole.dice)
    assert not list(tmp_path.rglob("last.pt"))


def test_it_needs_probabilities_of_each_class_and_for_the_deviation_dropout() -> None:
    def check(loss: str, config: Any) -> None:
        procedures.make(config.strategy).check(losses.create(loss, num_classes=3), config)

    check("smile", run_config(smiling()))
    check("smile", run_config(smiling(ranking="deviation"), model={"dropout": 0.1}))
    with pytest.raises(ValueError, match="smiler needs a loss of the sigmoid family, such as smile, got CrossEntropy"):
        check("ce", run_config(smiling()))
    with pytest.raises(ValueError, match=r"'deviation' needs a network with dropout: set model.dropout above 0"):
        check("smile", run_config(smiling(ranking="deviation")))
