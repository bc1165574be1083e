"""Transforms: what was annotated into the label's metadata, and the network's output into classes."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config.type_definitions import KeysCollection
from monai.data.meta_obj import get_track_meta
from monai.data.meta_tensor import MetaTensor
from monai.networks.utils import one_hot
from monai.transforms.traits import RandomizableTrait
from monai.transforms.transform import MapTransform, Transform
from monai.utils.enums import TransformBackends
from monai.utils.type_conversion import convert_to_dst_type, convert_to_tensor
from torch import Tensor

from labeldrop_bench.label_space import LabelSpace

from ._annotated import KEY, plain
from ._targets import UNANNOTATED
from .loss import PartialLabelLoss


class MarkAnnotatedd(MapTransform):
    """Writes which labels were annotated in a sample into its label's metadata: `meta["annotated"]`, `[L]` bool.

    The data list says it case by case, `{"image": ..., "label": ..., "annotated": ["LV", "LVM"]}`: names, or label
    values, or `[L]` bool; or `{"LV": true, "LVM": true}`, which `datafold_read` does not take for files. Where the key
    is missing, or None, everything was annotated. The item of the dictionary becomes the same tensor, in every sample,
    so that batches have it as well.

    Stands after `LoadImaged`, before what crops or augments.

    Args:
        keys: of the label maps.
        labels: names of the label values in their order, background first; their number; or a `LabelSpace`.
        source: key of the list of what was annotated.
        allow_missing_keys: whether samples may have no label map.

    Raises:
        TypeError: a label map that is not read yet, or what is no list.
        ValueError: a name, or value, of no label.
    """

    backend = [TransformBackends.TORCH]  # noqa: RUF012 - MONAI's

    def __init__(
        self,
        keys: KeysCollection,
        labels: int | Sequence[str] | LabelSpace,
        source: str = KEY,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.label_space = labels if isinstance(labels, LabelSpace) else LabelSpace.of_classes(labels)
        self.source = source

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The sample with its marks."""
        sample = dict(data)
        annotated = self._table_row(sample.get(self.source))
        sample[self.source] = annotated
        for key in self.key_iterator(sample):
            label = convert_to_tensor(sample[key], track_meta=get_track_meta())
            if not isinstance(label, Tensor):
                raise TypeError(
                    f"{type(self).__name__}: {key!r} must be a label map, got {label!r}: it stands after LoadImaged"
                )
            if isinstance(label, MetaTensor):
                label.meta[KEY] = annotated
            sample[key] = label
        return sample

    def _table_row(self, said: Any) -> Tensor:  # noqa: ANN401 - whatever a data list holds
        """`[L]` bool."""
        count = self.label_space.num_labels
        if said is None:
            return torch.ones(count, dtype=torch.bool, device="cpu")
        if isinstance(said, Mapping):
            self.label_space.annotated([list(said)])  # of names that are none, also those that say false are named
            said = [name for name, was in said.items() if was]
        row = torch.as_tensor(said) if hasattr(said, "dtype") else None
        if row is None:
            return self.label_space.annotated([said], device="cpu")[0]
        if row.dtype != torch.bool or row.shape != (count,) or not bool(row[0]):
            raise ValueError(
                f"{type(self).__name__}: {self.source!r} must be names, label values, or bool [{count}] that starts "
                f"with True, background's, got {row.tolist()} ({row.dtype})"
            )
        return row.cpu().as_subclass(Tensor)


class MarkTargetd(MarkAnnotatedd, RandomizableTrait):
    """`MarkAnnotatedd` for a training that takes the metadata off before it calls the loss, as Auto3DSeg's does.

    The label map becomes one-hot `[L, *spatial]` float32, in which the channels of labels that were not annotated are
    -1 throughout; a pixel with such a label is background, as for every loss of this package. The loss reads that with
    `annotated_in="target"`. MONAI's `DiceHelper` leaves such a channel out, as it does with a class that is not there.

    Stands last. Caches end before it, as before a random transform, since they would grow by 4 L bytes a pixel.

    Raises:
        ValueError: a label map of several channels, or of values that are no labels.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The sample with its label maps one-hot."""
        sample = super().__call__(data)
        for key in self.key_iterator(sample):
            sample[key] = self._one_hot(key, sample[key], sample[self.source])
        return sample

    def _one_hot(self, key: Hashable, label: Tensor, annotated: Tensor) -> Tensor:
        count, found = self.label_space.num_labels, plain(label)
        values = found.long()
        if found.shape[0] != 1 or not bool(((values == found) & (values >= 0) & (values < count)).all()):
            raise ValueError(
                f"MarkTargetd: {key!r} must be [1, *spatial] of the label values 0 to {count - 1}, got shape "
                f"{list(found.shape)} with values from {found.min()} to {found.max()}: pixels to be ignored have no "
                f"channel; labels are resampled with mode='nearest'"
            )
        annotated = annotated.to(found.device)
        marked = one_hot(values.where(annotated[values], 0), num_classes=count, dim=0)
        marked[~annotated] = UNANNOTATED
        return convert_to_dst_type(marked, label, dtype=marked.dtype)[0]


class PredictClasses(Transform):
    """What `AsDiscrete` is to MONAI's losses: the network's channels become classes as the loss means them.

    In the sigmoid family there is no channel of background: a pixel without a probability above a half is background.

    Args:
        loss: it has `predict`.
        to_onehot: give `[K, *spatial]` of 0 and 1 instead of `[1, *spatial]` class values.
    """

    backend = [TransformBackends.TORCH]  # noqa: RUF012 - MONAI's

    def __init__(self, loss: PartialLabelLoss, to_onehot: bool = False) -> None:
        super().__init__()
        self.loss, self.to_onehot = loss, to_onehot

    def __call__(self, img: Any) -> Tensor:  # noqa: ANN401 - arrays of any kind
        """Of logits `[out_channels, *spatial]`."""
        logits = convert_to_tensor(img, track_meta=get_track_meta())
        classes = self.loss.predict(logits.unsqueeze(0))
        if not self.to_onehot:
            return classes
        return one_hot(classes, num_classes=self.loss.label_space.num_classes, dim=0)


class PredictClassesd(MapTransform):
    """`PredictClasses` for dictionaries.

    Args:
        keys: of the network's outputs.
        loss: it has `predict`.
        to_onehot: give `[K, *spatial]` of 0 and 1 instead of `[1, *spatial]` class values.
        allow_missing_keys: whether samples may lack them.
    """

    backend = PredictClasses.backend

    def __init__(
        self, keys: KeysCollection, loss: PartialLabelLoss, to_onehot: bool = False, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.predict = PredictClasses(loss, to_onehot)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The sample with classes."""
        sample = dict(data)
        for key in self.key_iterator(sample):
            sample[key] = self.predict(sample[key])
        return sample
