"""Every loss with MONAI's call, `loss(input, target)`, and MONAI's targets."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.loss import _Loss

from labeldrop_bench.dropout import LabelDropout
from labeldrop_bench.label_space import LabelSpace

from ._annotated import for_samples, of_metadata, plain
from ._arguments import make_loss
from ._targets import as_labels, unmarked

_NAME = "PartialLabelLoss"
_HOW_TO_TELL = (
    "target.meta has no 'annotated'. MarkAnnotatedd writes it, into every sample, since collating keeps what all of a "
    "batch have; where metadata gets lost (compile=True, track_meta=False), PrepareBatch(loss) hands it on; where it "
    "is taken off, as Auto3DSeg does, use MarkTargetd and annotated_in='target'; or call loss(input, target, annotated)"
)


class PartialLabelLoss(_Loss):
    """A loss of labeldrop_bench for MONAI's trainers, bundles and `DeepSupervisionLoss`.

    What was annotated is, in this order, the call's `annotated`, `target.meta["annotated"]`, which `MarkAnnotatedd`
    writes, or this module's attribute `annotated`, which `PrepareBatch` sets. If nothing says it, everything was, as
    for every loss of this package; it warns, since MONAI leaves metadata behind in silence, and a class that nobody
    annotated is then taught as absent. After a call that knew it, or where `annotated_in` names the place, it is an
    error.

    Labels drop where the loss trains: in train mode, for an input that wants a gradient. (MONAI's engines put the
    network alone into eval mode.) One draw serves all calls for one batch up to the backward pass, so that
    `DeepSupervisionLoss` hides the same labels at every scale; in a graph of `torch.compile` each call draws.

    Args:
        loss: a name as for `losses.create`; or a loss, which has its own options.
        dropout: probability of dropping a label, or a `LabelDropout`.
        annotated_in: where it must stand: "metadata"; or "target", in the one-hot targets of `MarkTargetd`. None: in
            the metadata, if anywhere.
        **options: of the named loss, num_classes or label_space among them. MONAI's names are taken where they mean the
            same (`include_background`, `squared_pred`, `batch`, `reduction`, `ignore_index`, `gamma`, `alpha`) or
            nothing (`to_onehot_y`, `softmax` of a loss that reads by softmax).

    Raises:
        TypeError: neither a name nor a module, or an option that there is not.
        ValueError: an argument of MONAI's that would mean another thing here, another `annotated_in`, or what the loss
            or dropout refuse.
    """

    def __init__(
        self,
        loss: str | nn.Module = "marginal_ce+marginal_dice",
        dropout: float | LabelDropout = 0.0,
        annotated_in: str | None = None,
        **options: Any,  # noqa: ANN401 - the loss's
    ) -> None:
        super().__init__()
        if annotated_in not in (None, "metadata", "target"):
            raise ValueError(f"{_NAME}: annotated_in must be None, 'metadata' or 'target', got {annotated_in!r}")
        self.annotated_in = annotated_in
        self.loss: Any = make_loss(loss, options)
        self.reduction = getattr(self.loss, "reduction", "mean")
        self.dropout = dropout if isinstance(dropout, LabelDropout) else LabelDropout(dropout)
        self.annotated: Tensor | None = None
        self._drawn: tuple[Tensor, Tensor] | None = None  # what was annotated, and what is shown of it in this step
        self._must_be_told = annotated_in is not None
        self._everything: Tensor | None = None  # one object for all scales, where nobody tells

    @property
    def out_channels(self) -> int:
        """How many channels the network must give."""
        channels: int = self.loss.out_channels
        return channels

    @property
    def label_space(self) -> LabelSpace:
        """Of the loss."""
        space: LabelSpace = self.loss.label_space
        return space

    def predict(self, logits: Tensor) -> Tensor:
        """`[N, *spatial]` int64 class map; see `labeldrop_bench.losses.PartialLabelLoss.predict`."""
        classes: Tensor = self.loss.predict(logits)
        return classes

    def probabilities(self, logits: Tensor) -> Tensor:
        """See `labeldrop_bench.losses.PartialLabelLoss.probabilities`."""
        values: Tensor = self.loss.probabilities(logits)
        return values

    def forward(self, input: Tensor, target: Tensor, annotated: Tensor | None = None) -> Tensor:  # noqa: A002 - MONAI's
        """The loss.

        Args:
            input: `[N, out_channels, *spatial]` logits.
            target: `[N, 1, *spatial]` label values, of any type as long as they are whole numbers; or one-hot
                `[N, L, *spatial]`.
            annotated: `[N, L]` bool, or `[L]` for a batch of one.

        Raises:
            TypeError: no tensors.
            ValueError: nothing says what was annotated where it must, values that are no labels, or shapes that do not
                fit.
        """
        for argument, tensor in (("input", input), ("target", target)):
            if not isinstance(tensor, Tensor):
                raise TypeError(
                    f"{_NAME}: {argument} must be a tensor, got {type(tensor).__name__}: outputs at several scales go "
                    f"through monai.losses.DeepSupervisionLoss"
                )
        logits, labels, said = plain(input), plain(target), of_metadata(target)
        if self.annotated_in == "target":
            labels, said = unmarked(labels, self.label_space.num_labels, logits.ndim)
            said = self._of_this_step(said)
        shown = self._shown(self._given(said, annotated, input.shape[0]), input)
        labels = as_labels(labels, self.label_space.num_labels, logits.ndim)
        value: Tensor = self.loss(logits, labels, shown)
        if self._drawn is not None and value.requires_grad and not torch.compiler.is_compiling():
            value.register_hook(self._end_of_step)
        return value

    def _of_this_step(self, said: Tensor) -> Tensor:
        """The tensor of the scale, or micro-batch, before that says the same: labels are drawn for it already."""
        if self._drawn is None or torch.compiler.is_compiling():
            return said
        drawn = self._drawn[0]
        return drawn if drawn.device == said.device and torch.equal(drawn, said) else said

    def _given(self, said: object, annotated: Tensor | None, samples: int) -> Tensor:
        """What says what was annotated: one object for all scales of a step."""
        found: Any = next((each for each in (annotated, said, self.annotated) if each is not None), None)
        if found is not None:
            self._must_be_told = True
            given: Tensor = found  # or what is none: `for_samples` says so
            return given
        if self._must_be_told:
            earlier = "" if self.annotated_in else ", and earlier calls knew it"
            raise ValueError(f"{_NAME}: nothing says what was annotated{earlier}: {_HOW_TO_TELL}")
        if self._everything is None or self._everything.shape[0] != samples:
            if self._everything is None and not torch.compiler.is_compiling():
                warnings.warn(
                    f"{_NAME}: nothing says what was annotated, so everything counts as annotated everywhere. If that "
                    f"is not so: {_HOW_TO_TELL}",
                    stacklevel=3,
                )
            self._everything = torch.ones(samples, self.label_space.num_labels, dtype=torch.bool, device="cpu")
        return self._everything

    def _shown(self, given: Tensor, logits: Tensor) -> Tensor:
        """`[N, L]` on the device of the logits, without the labels that drop in this step."""
        rows = plain(for_samples(_NAME, given, logits.shape[0]))
        trains = self.training and logits.requires_grad and torch.is_grad_enabled()
        if torch.compiler.is_compiling():
            on_device = rows.to(logits.device)
            return self.dropout(on_device) if trains else on_device
        if not trains or self.dropout.p == 0:
            return rows.to(logits.device, non_blocking=True)
        drawn = self._drawn
        if drawn is None or drawn[0] is not given or drawn[1].device != logits.device:
            drawn = self._drawn = given, self.dropout(rows.to(logits.device, non_blocking=True))
        return drawn[1]

    def _end_of_step(self, _: Tensor) -> None:
        """The gradient has come: the next call draws anew, also for the same batch."""
        self._drawn = None

    def __getstate__(self) -> dict[str, Any]:
        """Without what belongs to a step."""
        return {**self.__dict__, "_drawn": None, "annotated": None}
