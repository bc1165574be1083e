"""Images and label maps that are read when they are asked for: a data set may be larger than memory.

`Images` and `LabelMaps` look like tensors with a first axis of n samples, but hold none of the pixels of prepared
cases: they know where each sample lies. `[i]`, `[a:b]` and `[index]` read these samples and nothing else; `box` reads a
part of one. What is done to them is done to small tables: a scaling of each channel of each image, and a lookup of each
label map. So an edit of a data set never touches a pixel, and every edit stays what it says it is when pixels are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Box = tuple[slice, ...]
"""One slice for each spatial axis; () is everything."""
UNSCALED = (-torch.inf, torch.inf, 0.0, 1.0)
"""Low, high, shift and divisor of a channel that is taken as it is stored."""


class Source(Protocol):
    """Arrays of one shape, wherever they are."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one of them."""

    def read(self, place: int) -> NDArray[Any]:
        """One of them, perhaps as a view of a mapped file: to copy what is wanted from, not to be kept."""

    def foreground(self, place: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Some stored intensities [channels, m] of labelled pixels of an image, and the stored values of the labels."""


@dataclass(frozen=True)
class InMemory:
    """The rows of a tensor."""

    values: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a row."""
        return tuple(self.values.shape[1:])

    def read(self, place: int) -> NDArray[Any]:
        """A view of a row."""
        row: NDArray[Any] = self.values[place].numpy()
        return row

    def foreground(self, place: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """None: what is in memory has its intensities already."""
        return np.empty((len(self.values[place]), 0), np.float32), np.empty(0, np.uint8)


@dataclass(frozen=True)
class _Places:
    """Where n samples are: sample i is number `number[i]` of `sources[source[i]]`."""

    sources: tuple[Source, ...]
    source: Tensor  # [n] int64
    number: Tensor  # [n] int64

    @staticmethod
    def of(source: Source, n: int) -> _Places:
        return _Places((source,), torch.zeros(n, dtype=torch.int64), torch.arange(n))

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.number), *self.sources[0].shape)

    def read(self, i: int, box: Box) -> NDArray[Any]:
        whole: Any = self.sources[int(self.source[i])].read(int(self.number[i]))
        part: NDArray[Any] = whole[(..., *box)]
        return part

    def take(self, index: Tensor) -> _Places:
        return _Places(self.sources, self.source[index], self.number[index])

    @staticmethod
    def joined(parts: Sequence[_Places]) -> _Places:
        if len(shapes := {part.shape[1:] for part in parts}) != 1:
            raise ValueError(f"joined: all samples must have one shape, got {sorted(shapes)}")
        first = np.cumsum([0, *(len(part.sources) for part in parts)])
        return _Places(
            tuple(source for part in parts for source in part.sources),
            torch.cat([part.source + int(start) for part, start in zip(parts, first, strict=False)]),
            torch.cat([part.number for part in parts]),
        )

    def replaced(self, index: Tensor, source: Source) -> _Places:
        """With the rows of another source in some places; sources that nothing lies in any more are let go."""
        where, number = self.source.clone(), self.number.clone()
        where[index], number[index] = len(self.sources), torch.arange(len(index))
        left, where = where.unique(return_inverse=True)
        return _Places(tuple([*self.sources, source][s] for s in left.tolist()), where, number)


def _chosen(index: int | slice | Tensor, n: int) -> list[int]:
    """The samples that an index names."""
    if isinstance(index, slice):
        return list(range(n))[index]
    if isinstance(index, Tensor):
        if index.dtype != torch.int64 or index.ndim != 1:
            raise TypeError(f"samples are chosen by an int64 tensor [m], got {index.dtype} {tuple(index.shape)}")
        return [range(n)[i] for i in index.tolist()]
    return [range(n)[index]]


class _ReadWhenAsked:
    """What looks like a tensor [n, *item], of which each item is read when it is asked for.

    Args:
        places: where they are.
    """

    def __init__(self, places: _Places) -> None:
        self._places = places

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, *item)."""
        return self._places.shape

    @property
    def ndim(self) -> int:
        """Number of axes, that of the samples counted."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int | slice | Tensor) -> Tensor:
        """One item [*item], or several [m, *item], as a new tensor."""
        items = self._read(_chosen(index, len(self)), ())
        return items[0] if isinstance(index, int) else items

    def box(self, i: int, box: Box) -> Tensor:
        """A part of one item: [..., *box], for which no more memory is needed than it takes itself."""
        return self._read(_chosen(i, len(self)), box)[0]

    def _read(self, chosen: Sequence[int], box: Box) -> Tensor:
        """A part of each of some items, [m, ..., *box]."""
        raise NotImplementedError


class Images(_ReadWhenAsked):
    """n images [channels, *spatial], of which each is read, scaled and given as float32 when it is asked for.

    A stored value x of a channel becomes (min(max(x, low), high) - shift) / divisor. An infinite divisor makes 0 of a
    channel that is constant.

    Args:
        places: where they are.
        scaling: [n, channels, 4] float32: low, high, shift, divisor.
        pooled: [n, channels] bool: is the scaling to be that of all training images together (`intensities.pool`)?
    """

    def __init__(self, places: _Places, scaling: Tensor, pooled: Tensor) -> None:
        super().__init__(places)
        self.scaling, self.pooled = scaling, pooled
        self._plain = bool((scaling == torch.tensor(UNSCALED)).all())

    @classmethod
    def of(cls, images: Tensor) -> Images:
        """Images in memory, taken as they are.

        Raises:
            TypeError: they are not float32.
            ValueError: they are not [n, channels, *spatial].
        """
        if images.dtype != torch.float32:
            raise TypeError(f"Images: must be torch.float32, got {images.dtype}")
        if images.ndim < 3:
            raise ValueError(f"Images: must be [n, channels, *spatial], got shape {tuple(images.shape)}")
        scaling = torch.tensor(UNSCALED).repeat(*images.shape[:2], 1)
        return cls.stored(InMemory(images), scaling, torch.zeros(images.shape[:2], dtype=torch.bool))

    @classmethod
    def stored(cls, source: Source, scaling: Tensor, pooled: Tensor) -> Images:
        """All images of a source."""
        return cls(_Places.of(source, len(scaling)), scaling, pooled)

    @classmethod
    def joined(cls, parts: Sequence[Images]) -> Images:
        """Several after one another."""
        scaling, pooled = (torch.cat([getattr(part, name) for part in parts]) for name in ("scaling", "pooled"))
        return cls(_Places.joined([part._places for part in parts]), scaling, pooled)

    def take(self, index: Tensor) -> Images:
        """The images at some places [m], still unread."""
        return Images(self._places.take(index), self.scaling[index], self.pooled[index])

    def scaled(self, scaling: Tensor) -> Images:
        """The same images with another scaling [n, channels, 4]."""
        return Images(self._places, scaling, self.pooled)

    def foreground(self, i: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Some stored intensities [channels, m] of labelled pixels of image i, and the stored values of the labels."""
        return self._places.sources[int(self._places.source[i])].foreground(int(self._places.number[i]))

    def _read(self, chosen: Sequence[int], box: Box) -> Tensor:
        images = np.empty((len(chosen), *_cut(self.shape[1:], box)), np.float32)
        for row, i in zip(images, chosen, strict=True):
            row[...] = self._places.read(i, box)
        read = torch.from_numpy(images)
        if self._plain:
            return read
        numbers = self.scaling[torch.tensor(chosen, dtype=torch.int64)]  # [m, channels, 4]
        low, high, shift, divisor = (x[(..., *(None,) * (read.ndim - 2))] for x in numbers.unbind(2))
        if bool(low.isfinite().any() | high.isfinite().any()):
            torch.clamp(read, low, high, out=read)
        return read.sub_(shift).div_(divisor)


class LabelMaps(_ReadWhenAsked):
    """n label maps [*spatial] uint8, of which each is read and looked up in a table of its own when it is asked for.

    Args:
        places: where the stored maps are.
        stored: [n, 256] int32, how many pixels of each stored map have each value.
        table: [n, 256] uint8: what becomes of each stored value.
    """

    def __init__(self, places: _Places, stored: Tensor, table: Tensor) -> None:
        super().__init__(places)
        self._stored, self.table = stored, table

    @classmethod
    def of(cls, maps: Tensor) -> LabelMaps:
        """Label maps in memory, taken as they are.

        Raises:
            TypeError: they are not uint8.
        """
        if maps.dtype != torch.uint8:
            raise TypeError(f"LabelMaps: must be torch.uint8, got {maps.dtype}")
        pixels = [torch.bincount(one.flatten(), minlength=256).int() for one in maps]
        return cls.stored(InMemory(maps), torch.stack(pixels) if pixels else torch.zeros(0, 256, dtype=torch.int32))

    @classmethod
    def stored(cls, source: Source, counts: Tensor) -> LabelMaps:
        """All maps of a source as they are; `counts` [n, 256] int32 says how many pixels of each have each value."""
        n = len(counts)
        return cls(_Places.of(source, n), counts, torch.arange(256, dtype=torch.uint8).expand(n, -1))

    @classmethod
    def joined(cls, parts: Sequence[LabelMaps]) -> LabelMaps:
        """Several after one another."""
        stored, table = (torch.cat([getattr(part, name) for part in parts]) for name in ("_stored", "table"))
        return cls(_Places.joined([part._places for part in parts]), stored, table)

    @property
    def counts(self) -> Tensor:
        """[n, 256] int32: how many pixels of each map have each value. Nothing is read for it."""
        return torch.zeros_like(self._stored).scatter_add_(1, self.table.long(), self._stored)

    def unique(self) -> Tensor:
        """[m] uint8: the values that any map has, in ascending order. Nothing is read for it."""
        return self.counts.any(0).nonzero().flatten().to(torch.uint8)

    def take(self, index: Tensor) -> LabelMaps:
        """The maps at some places [m], still unread."""
        return LabelMaps(self._places.take(index), self._stored[index], self.table[index])

    def mapped(self, lookup: Tensor) -> LabelMaps:
        """Maps with other values.

        Args:
            lookup: [256] uint8, what becomes of each value, or [n, 256], one for each map.
        """
        return LabelMaps(self._places, self._stored, lookup.expand(len(self), -1).gather(1, self.table.long()))

    def replaced(self, maps: Mapping[int, Tensor]) -> LabelMaps:
        """With other maps [*spatial] uint8, kept in memory, at some places; the others stay where they are."""
        if not maps:
            return self
        index, held = torch.tensor([*maps]), torch.stack([*maps.values()])
        new = LabelMaps.of(held)
        stored, table = self._stored.clone(), self.table.clone()
        stored[index], table[index] = new._stored, new.table
        return LabelMaps(self._places.replaced(index, InMemory(held)), stored, table)

    def _read(self, chosen: Sequence[int], box: Box) -> Tensor:
        maps = np.empty((len(chosen), *_cut(self.shape[1:], box)), np.uint8)
        for row, i in zip(maps, chosen, strict=True):
            looked_up = self._places.read(i, box).tobytes().translate(self.table[i].numpy().tobytes())
            row[...] = np.frombuffer(looked_up, np.uint8).reshape(row.shape)  # indexing would take 8 bytes a pixel
        return torch.from_numpy(maps)


def _cut(shape: tuple[int, ...], box: Box) -> tuple[int, ...]:
    """Shape of what a box takes of an array; axes before those of the box stay whole."""
    before = len(shape) - len(box)
    return (*shape[:before], *(len(range(n)[part]) for n, part in zip(shape[before:], box, strict=True)))
