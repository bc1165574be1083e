"""The heteroscedastic schedule and sporadic-error rejection."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from tiny import discs, run_config
from torch import Tensor

from labeldrop_bench import losses, procedures, train
from labeldrop_bench.data.arrays import Images, LabelMaps
from labeldrop_bench.data.base import IGNORED, Samples
from labeldrop_bench.procedures.heteroscedastic import PlainLoss, Schedule
from labeldrop_bench.procedures.rejection import Rejection, sporadic_errors
from labeldrop_bench.train import Learner

CERTAIN, UNSURE = -20.0, 5.0  # flip logits: q about 1e-9, and nearly 0.5


class Given(torch.nn.Module):
    """A "network" whose logits are the image's channels."""

    def forward(self, images: Tensor) -> Tensor:
        return images


class TwoViews:
    """The images as they are, and with a channel for each view's own change."""

    def __init__(self, change: Tensor) -> None:
        self.change = change

    def draw(self, images: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        return images, target

    def views(self, network: Any, images: Tensor) -> list[Tensor]:
        return [network(images), network(images + self.change)]


def learner(fabric: Fabric, samples: Samples, images: Tensor, rule: str = "smile") -> Learner:
    """One whose network gives logits [n, 2 (K - 1), h, w]."""
    strategy = {"name": "it", "loss": "label_flip", "loss_options": {"rule": rule}}
    made = train.make_learner(run_config(strategy), discs(n=1), fabric)
    samples = dataclasses.replace(samples, images=Images.of(images))
    return dataclasses.replace(made, network=Given(), samples=samples)


def found(fabric: Fabric, samples: Samples, logits: Tensor, threshold: float = 1e-3, rule: str = "smile") -> Tensor:
    """The errors that a network with such logits finds."""
    given = learner(fabric, samples, logits, rule)
    return sporadic_errors(given, given.samples, threshold)


def relabelled(samples: Samples, where: Any, value: int) -> Samples:
    """With another label value in some pixels."""
    target = samples.target[:]
    target[where] = value
    return dataclasses.replace(samples, target=LabelMaps.of(target))


def agreeing(samples: Samples) -> Tensor:
    """Logits that say what is labelled, and are sure of it."""
    classes = torch.stack([samples.target[:] == c for c in (1, 2)], dim=1).float() * 20 - 10
    return torch.cat([classes, torch.full_like(classes, CERTAIN)], dim=1)


def test_errors_are_what_the_network_disagrees_with_and_did_not_expect(fabric: Fabric) -> None:
    samples = relabelled(discs(n=1).train, np.s_[:, :3, :3], 0)
    logits = agreeing(samples)
    assert not found(fabric, samples, logits).any()
    logits[0, 0, 0, 0] = 10  # says "bright" where background is labelled, surely
    logits[0, 0, 0, 1], logits[0, 2, 0, 1] = 10, UNSURE  # the same, but it expects to be wrong
    logits[0, 1, 0, 2] = 10  # the other class
    logits[0, 1, 1, 1], logits[0, 2, 1, 1] = 10, UNSURE  # unsure of "bright", which is right; sure of "dark", wrong
    bright = (samples.target[0] == 1).nonzero()[0].tolist()
    logits[0, 0, bright[0], bright[1]] = -10  # a label it does not see
    errors = found(fabric, samples, logits)
    assert {tuple(p) for p in errors.nonzero().tolist()} == {(0, 0, 0), (0, 0, 2), (0, 1, 1), (0, *bright)}
    # q of these is about 1e-9
    assert not found(fabric, samples, logits, 1e-10).any()


@pytest.mark.parametrize("rule", ["smile", "adaptive", "standard"])
def test_terms_that_do_not_count_are_no_errors(rule: str, fabric: Fabric) -> None:
    samples = relabelled(discs(n=1).train, np.s_[:, :2, :4], 0)  # image 1, of domain B, has no "dark" annotated
    samples = relabelled(samples, np.s_[:, 0, 0], IGNORED)
    logits = agreeing(samples)
    logits[:, :2, 0, 0] = 10  # ignored
    logits[:, 1, 0, 1] = 10  # "dark" on background: wrong in A, open in B
    bright = (samples.target[1] == 1).nonzero()[0].tolist()
    logits[1, 1, bright[0], bright[1]] = 10  # "dark" on a labelled "bright" in B
    errors = {tuple(p) for p in found(fabric, samples, logits, rule=rule).nonzero().tolist()}
    expected = {(0, 0, 1)}
    if rule != "adaptive":
        expected.add((1, *bright))  # by smile, another label says no
    if rule == "standard":
        expected |= {(1, 0, 1)}  # what is unannotated is background
    assert errors == expected


def test_every_view_must_agree_that_it_is_an_error(fabric: Fabric) -> None:
    samples = relabelled(discs(n=1).train, np.s_[:, :2, :4], 0)
    logits, change = agreeing(samples), torch.zeros(1, 4, 16, 16)
    logits[0, 0, 0, :3] = 10
    change[0, 0, 0, 1] = -20  # the second view sees no "bright" at the second pixel
    change[0, 2, 0, 2] = 40  # and is unsure at the third
    change[0, 0, 0, 3] = 20  # at the fourth it alone sees one
    given = dataclasses.replace(learner(fabric, samples, logits), patches=TwoViews(change))
    assert sporadic_errors(given, given.samples, 1e-3).nonzero().tolist() == [[0, 0, 0]]


def test_images_are_looked_at_in_portions(fabric: Fabric, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = discs(n=3).train
    logits = agreeing(samples)
    logits[5, 0, 0, 0] *= -1
    at_once = found(fabric, samples, logits)
    monkeypatch.setattr("labeldrop_bench.evaluate.IMAGES_AT_ONCE", 4)
    assert torch.equal(found(fabric, samples, logits), at_once)
    assert at_once.sum() == at_once[5].sum() == 1


def test_what_is_found_stays_masked_until_the_next_search_which_starts_from_the_labels(fabric: Fabric) -> None:
    samples = relabelled(discs(n=1).train, np.s_[:, :2, :4], 0)
    right = agreeing(samples)
    right[0, 0, 0, 3] = 10  # but for this pixel, which it never agrees with
    images = right.clone()
    images[0, 0, 0, 0] = 10
    given = learner(fabric, samples, images)
    hook = Rejection(first=2, every=3, threshold=1e-3)
    masked = []
    for epoch in range(1, 9):
        if epoch == 4:  # the network has changed its mind, but is asked again before epoch 5
            given.network = torch.nn.Sequential(Given(), Shift(right - images, row=1))
        if epoch == 7:
            given.network = Shift(right - images)  # now it agrees with all other labels; asked before epoch 8
        hook.before_epoch(epoch, given)
        masked.append((given.samples.target[:] == IGNORED).nonzero().tolist())
        left = given.samples.target[:]
        assert torch.equal(left[left != IGNORED], samples.target[:][left != IGNORED])
    always = [0, 0, 3]
    first, second = [[0, 0, 0], always], [always, [0, 1, 1]]
    assert masked == [[], first, first, first, second, second, second, [always]]


class Shift(torch.nn.Module):
    """Adds something to the logits; with a row, also says "bright" at its second pixel, surely."""

    def __init__(self, by: Tensor, row: int | None = None) -> None:
        super().__init__()
        self.by, self.row = by, row

    def forward(self, images: Tensor) -> Tensor:
        logits = images + self.by
        if self.row is not None:
            logits[0, 0, self.row, 1] = 10
        return logits


def test_the_mask_is_the_hooks_state(fabric: Fabric) -> None:
    samples = relabelled(discs(n=1).train, np.s_[:, :2], 0)
    images = agreeing(samples)
    images[0, 0, 0, 0] = 10
    first = Schedule(0, Rejection(1, 5, 1e-3))
    first.before_epoch(1, learner(fabric, samples, images))
    state = first.state_dict()
    assert state["found"] == [{"epoch": 1, "pixels": 1, "share": 1 / (2 * 16 * 16)}]
    second, given = Schedule(0, Rejection(1, 5, 1e-3)), learner(fabric, samples, agreeing(samples))
    second.load_state_dict(state)
    second.before_epoch(2, given)  # no search is due
    assert (given.samples.target[:] == IGNORED).nonzero().tolist() == [[0, 0, 0]]
    assert Schedule(3).state_dict() == {}


@pytest.mark.parametrize("name", ["label_flip", "predictive_variance"])
@pytest.mark.parametrize(
    ("options", "plain"),
    [
        ({"base": "bce", "rule": "standard"}, "bce"),
        ({"base": "bce", "rule": "adaptive", "class_weights": [1.0, 3.0]}, "adaptive_bce"),
        ({"base": "focal", "rule": "smile", "gamma": 1.5, "reduction": "sum"}, "smile"),
    ],
)
def test_the_warm_up_is_the_plain_loss_on_the_class_logits(name: str, options: dict[str, Any], plain: str) -> None:
    dataset = discs(n=2)
    full = losses.create(name, label_space=dataset.label_space, ignore_index=IGNORED, **options)
    shared = {key: value for key, value in options.items() if key != "rule"}
    expected = losses.create(plain, label_space=dataset.label_space, ignore_index=IGNORED, **shared)
    logits = torch.randn(4, 4, 16, 16, requires_grad=True)
    target, annotated = dataset.train.target[:], dataset.train.annotated
    warm = PlainLoss(full)
    value = warm(logits, target, annotated)
    assert value == expected(logits[:, :2], target, annotated)
    value.backward()
    assert logits.grad is not None
    assert logits.grad[:, :2].any()
    assert not logits.grad[:, 2:].any()
    assert warm.out_channels == full.out_channels == 4
    assert torch.equal(warm.predict(logits), full.predict(logits))


def test_the_loss_changes_after_the_warm_up(fabric: Fabric) -> None:
    given = train.make_learner(run_config({"name": "it", "loss": "predictive_variance"}), discs(n=1), fabric)
    full, seen = given.loss, []
    hook = Schedule(2)
    for epoch in (1, 2, 3, 4):
        hook.before_epoch(epoch, given)
        seen.append(given.loss is full)
        assert seen[-1] or isinstance(given.loss, PlainLoss)
    assert seen == [False, False, True, True]


@pytest.mark.parametrize("name", ["label_flip", "predictive_variance"])
def test_it_trains(name: str, tmp_path: Path, fabric: Fabric) -> None:
    procedure = {"name": "heteroscedastic", "warm_up": 15}
    strategy = {"name": "it", "loss": name, "loss_options": {"base": "bce"}, "procedure": procedure}
    config = run_config(strategy, training={"epochs": 30, "learning_rate": 0.3})
    made = procedures.make(config.strategy)
    assert made.fits == 1
    assert made.train(config, discs(), tmp_path, fabric, lambda _: None).dice > 0.5  # untrained: below 0.3


def test_what_does_not_go_together_is_refused() -> None:
    def check(loss: str, **options: Any) -> None:
        config = run_config({"name": "it", "loss": loss, "procedure": {"name": "heteroscedastic", **options}})
        procedures.make(config.strategy).check(losses.create(loss, num_classes=3), config)

    check("label_flip", warm_up=2, reject_from=3)
    check("predictive_variance", warm_up=2)
    for loss in ("smile", "ce", "marginal_ce+marginal_dice"):
        with pytest.raises(ValueError, match="heteroscedastic needs label_flip or predictive_variance, got"):
            check(loss)
    with pytest.raises(ValueError, match="reject_from needs label_flip, got PredictiveVariance"):
        check("predictive_variance", reject_from=3)
    with pytest.raises(ValueError, match=r"reject_from must be an epoch after the warm-up.*= 2 with warm_up = 2"):
        check("label_flip", warm_up=2, reject_from=2)


def test_an_unknown_procedure_is_named() -> None:
    config = run_config({"name": "it", "loss": "smile", "procedure": {"name": "smilr"}})
    with pytest.raises(ValueError, match=r"procedure\.name: there is no procedure 'smilr'; did you mean 'smiler'"):
        procedures.make(config.strategy)


TWO_PROCESSES = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import torch
from lightning_fabric import Fabric
from tiny import discs, run_config
from labeldrop_bench import train
from labeldrop_bench.procedures.heteroscedastic import Schedule
from labeldrop_bench.procedures.rejection import Rejection

fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp", precision="32-true")
fabric.launch()
config = run_config({"name": "it", "loss": "label_flip", "loss_options": {"base": "bce"}}, training={"save_every": 1})
hook = Schedule(1, Rejection(2, 1, 0.3))
here = Path(sys.argv[1])
train.fit(config, discs(), here / "fit", fabric=fabric, hook=hook)
torch.save((hook.rejection.mask, fabric.world_size), here / f"{fabric.global_rank}.pt")
"""


@pytest.mark.slow
def test_two_processes_mask_the_same(tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text(TWO_PROCESSES)
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
        str(tmp_path / "two.py"), str(tmp_path), str(Path(__file__).parent),
    ]  # fmt: skip
    root = str(Path(train.__file__).parents[1])
    done = subprocess.run(
        command,
        cwd=root,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (first, processes), (second, _) = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert processes == 2
    assert first.any()
    assert torch.equal(first, second)
