"""Trainers of nnU-Net v2 for cases in which not every label was annotated.

    class MyTrainer(nnUNetTrainerPartialLabels):     # in a module of your own, in a folder that nnUNet_extTrainer names
        p_drop = 0.5

All else is nnU-Net's: network, augmentation, schedule, checkpoints. They go together with other trainers that do not
bring a loss of their own: `class MyTrainer(nnUNetTrainerPartialLabels, nnUNetTrainer_250epochs)`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
import torch.distributed
from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.paths import nnUNet_raw
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as trainer_module  # noqa: N813 - the module
from torch import Tensor, nn

from labeldrop_bench import losses
from labeldrop_bench.dropout import LabelDropout
from labeldrop_bench.label_space import LabelSpace

from .annotations import KEY, AnnotationError, Annotations, closest, label_names, read_annotations
from .scores import hard_counts, only_annotated

__all__ = [
    "nnUNetTrainerPartialLabels",
    "nnUNetTrainerPartialLabels_Adaptive",
    "nnUNetTrainerPartialLabels_AdaptiveDropout03",
    "nnUNetTrainerPartialLabels_MarginalDropout03",
    "nnUNetTrainerPartialLabels_MarginalDropout05",
]


class AnnotatedLoss(nn.Module):
    """A loss with nnU-Net's call `(logits, target)`: what was annotated in the batch is told beforehand."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss
        self._annotated: Tensor | None = None

    @contextlib.contextmanager
    def of(self, annotated: Tensor) -> Iterator[None]:
        """While this is open, calls are about a batch with these annotated labels, `[N, L]` bool."""
        self._annotated = annotated
        try:
            yield
        finally:
            self._annotated = None

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss of `[N, K, *spatial]` logits and `[N, 1, *spatial]` label values."""
        if self._annotated is None:
            raise RuntimeError(
                "AnnotatedLoss: nobody said what was annotated in this batch. A train_step or validation_step of your "
                "own has to call the loss inside `with self.knowing(batch, ...):`, or super().train_step(batch)"
            )
        value: Tensor = self.loss(logits, target, self._annotated)
        return value


class nnUNetTrainerPartialLabels(trainer_module.nnUNetTrainer):  # type: ignore[misc]  # noqa: N801 - nnU-Net's habit
    """nnU-Net with a loss that knows which labels were annotated in each case, and label dropout.

    What was annotated is the key `annotated_labels` of dataset.json, which `labeldrop-bench nnunet annotate` writes; a
    case that it does not name has every label.
    Where everything was, the default is nnU-Net's own loss plus one, which is minus Dice.

    Attributes:
        loss_name: a loss of `labeldrop_bench.losses`, or a sum of them, of the softmax family.
        loss_options: its options, besides those that are as in nnU-Net's own loss: background left out of Dice, `batch`
            as `batch_dice` in the plans, the label named ignore, and Dice over all GPUs if it is over the batch.
        p_drop: probability of label dropout, for all labels or name -> probability; others are then never dropped.
    """

    loss_name: ClassVar[str] = "marginal_ce+marginal_dice"
    loss_options: ClassVar[Mapping[str, Any]] = {}
    p_drop: ClassVar[float | Mapping[str, float]] = 0.0

    def initialize(self) -> None:
        """nnU-Net's, after what was annotated is known."""
        where = Path(self.preprocessed_dataset_folder_base) / "dataset.json"
        dataset_class = trainer_module.infer_dataset_class(self.preprocessed_dataset_folder)
        cases = set(dataset_class.get_identifiers(self.preprocessed_dataset_folder))
        label_names(self.dataset_json, where)  # regions are refused before anything else
        self._same_as_raw(where)
        self.annotations: Annotations = read_annotations({KEY: {}, **self.dataset_json}, cases, where)
        self.dropout = self._make_dropout()
        super().initialize()
        if KEY not in self.dataset_json:
            self.print_to_log_file(
                f"WARNING: {where} has no {KEY}, so every label counts as annotated in every case. If that is not so, "
                f"stop this and say it: labeldrop-bench nnunet annotate {self.plans_manager.dataset_name} "
                f"--source-pattern 'PATTERN=LABEL,...'"
            )
        incomplete, all_cases = len(self.annotations.incomplete), len(cases)
        self.print_to_log_file(
            f"Partial labels: {incomplete} of {all_cases} cases lack a label; loss {self.loss_name}, label dropout "
            f"{self.p_drop}"
        )

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """nnU-Net's; labels are dropped once, for all scales."""
        with self.knowing(batch, drop=True):
            result: dict[str, Any] = super().train_step(batch)
        return result

    @torch.no_grad()
    def validation_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Loss and counts of pixels, as nnU-Net's; nothing is counted for a class where it was not annotated."""
        data, target = batch["data"].to(self.device, non_blocking=True), batch["target"]
        if isinstance(target, list):
            target = [scale.to(self.device, non_blocking=True) for scale in target]
        else:
            target = target.to(self.device, non_blocking=True)
        mixed = torch.autocast("cuda") if self.device.type == "cuda" else contextlib.nullcontext()
        with mixed, self.knowing(batch, drop=False) as annotated:
            output = self.network(data)
            value = self.loss(output, target)
        if self.enable_deep_supervision:
            output, target = output[0], target[0]
        return {
            "loss": value.cpu().numpy(),
            **hard_counts(output, target, annotated, self.label_manager.ignore_label),
        }

    def on_validation_epoch_end(self, val_outputs: list[dict[str, Any]]) -> None:
        """nnU-Net's, which takes a class of 0/0 for one that is not there."""
        with np.errstate(invalid="ignore"):
            super().on_validation_epoch_end(val_outputs)

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """nnU-Net's; summary.json is about what was annotated."""
        with only_annotated(self.annotations, [trainer_module]):
            super().perform_actual_validation(save_probabilities)

    @contextlib.contextmanager
    def knowing(self, batch: Mapping[str, Any], *, drop: bool) -> Iterator[Tensor]:
        """While this is open, `self.loss` knows what was annotated in a batch, which is given: `[N, L]` bool.

        Args:
            batch: of nnU-Net's loader.
            drop: whether label dropout hides some of it.
        """
        annotated = self.annotations.rows(str(case) for case in batch["keys"]).to(self.device, non_blocking=True)
        if drop and self.dropout is not None:
            annotated = self.dropout(annotated)
        with self.partial_loss.of(annotated):
            yield annotated

    def _build_loss(self) -> nn.Module:
        """nnU-Net's weights of the scales, with our loss inside."""
        self.partial_loss = AnnotatedLoss(self._make_loss())
        theirs = super()._build_loss()
        if not isinstance(theirs, DeepSupervisionWrapper):
            return self.partial_loss
        theirs.loss = self.partial_loss
        return cast("nn.Module", theirs)

    def _make_loss(self) -> nn.Module:
        batch_dice = self.configuration_manager.batch_dice
        ignore = self.label_manager.ignore_label
        theirs = {
            "batch": batch_dice,
            "include_background": False,
            "process_group": torch.distributed.group.WORLD if self.is_ddp and batch_dice else None,
            **({} if ignore is None else {"ignore_index": ignore}),
        }
        known = losses.options_of(self.loss_name)
        options = {name: value for name, value in theirs.items() if name in known} | dict(self.loss_options)
        loss: nn.Module = losses.create(
            self.loss_name, label_space=LabelSpace.of_classes(self.annotations.labels), **options
        )
        heads = self.label_manager.num_segmentation_heads
        kinds = {getattr(term, "activation", "softmax") for term in getattr(loss, "terms", [loss])}
        if kinds != {"softmax"} or loss.out_channels != heads:
            raise ValueError(
                f"{type(self).__name__}: loss_name must be of the softmax family, since nnU-Net predicts the class "
                f"with the largest of {heads} channels; {self.loss_name!r} is not: take 'marginal_ce+marginal_dice' "
                f"or 'adaptive_ce+adaptive_dice'"
            )
        return loss

    def _make_dropout(self) -> LabelDropout | None:
        """None where nothing is ever dropped: augmentation then draws the numbers that it draws in nnU-Net."""
        p, labels = self.p_drop, self.annotations.labels
        if not isinstance(p, Mapping):
            return LabelDropout(p) if p != 0 else None
        for name in p:
            if name not in labels[1:]:
                rest = closest(name, labels[1:]) or f"; labels: {', '.join(labels[1:])}"
                raise ValueError(f"{type(self).__name__}: p_drop: there is no label {name!r}{rest}")
        return LabelDropout([p.get(name, 0.0) for name in labels])

    def _same_as_raw(self, where: Path) -> None:
        """nnU-Net trains with its copy of dataset.json, and a person edits the other one."""
        if not nnUNet_raw.is_set():
            return
        raw = Path(nnUNet_raw.get()) / self.plans_manager.dataset_name / "dataset.json"
        if raw.is_file() and load_json(os.fspath(raw)).get(KEY) != self.dataset_json.get(KEY):
            raise AnnotationError(
                f"{KEY} is not the same in {raw} and in {where}, which nnU-Net trains with: write both with "
                f"`labeldrop-bench nnunet annotate {self.plans_manager.dataset_name} ...`, or copy the one that is "
                f"right over the other"
            )


class nnUNetTrainerPartialLabels_Adaptive(nnUNetTrainerPartialLabels):  # noqa: N801 - nnU-Net's habit
    """The softmax runs over the annotated classes."""

    loss_name = "adaptive_ce+adaptive_dice"


class nnUNetTrainerPartialLabels_AdaptiveDropout03(nnUNetTrainerPartialLabels_Adaptive):  # noqa: N801 - nnU-Net's habit
    """The same with label dropout."""

    p_drop = 0.3


class nnUNetTrainerPartialLabels_MarginalDropout03(nnUNetTrainerPartialLabels):  # noqa: N801 - nnU-Net's habit
    """The default loss with label dropout."""

    p_drop = 0.3


class nnUNetTrainerPartialLabels_MarginalDropout05(nnUNetTrainerPartialLabels):  # noqa: N801 - nnU-Net's habit
    """The default loss with more of it."""

    p_drop = 0.5
