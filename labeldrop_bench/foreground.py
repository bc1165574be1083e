"""Where the labels of a sample are: what boxes are centred on that must not miss small structures."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from labeldrop_bench.data.arrays import LabelMaps
from labeldrop_bench.data.base import Samples

PLACES = 256  # kept of each label in each sample: 2 KiB
BLOCK = 1 << 22  # pixels that are looked through together


class Foreground:
    """Draws labelled pixels of samples: of one of the labels by chance, and then one of its pixels.

    So a label of ten pixels is met as often as one of a million, as nnU-Net does it (Isensee et al. 2021). What counts
    is what training sees: a label that is hidden or was not annotated has no pixels in `target`, and is not looked for.

    A label map is looked through once, block by block, when its sample is drawn from for the first time; what is kept
    is a choice of each label's pixels that hangs on the sample alone. So a run that goes on after a break draws what it
    would have drawn.
    """

    def __init__(self) -> None:
        self._maps: LabelMaps | None = None
        self._counts = torch.empty(0)
        self._places: dict[int, dict[int, Tensor]] = {}

    def draw(self, samples: Samples, i: int, label: float, pixel: float) -> tuple[int, ...] | None:
        """A labelled pixel of sample i; None if it has none.

        Args:
            samples: as training sees them.
            i: which.
            label: a random number in [0, 1), which says which label.
            pixel: another, which says which of its pixels.
        """
        if samples.target is not self._maps:
            self._maps, self._counts, self._places = samples.target, samples.target.counts, {}
        if i not in self._places:
            self._places[i] = places_of_labels(samples.target, i, self._counts[i])
        found = [places for value, places in self._places[i].items() if samples.annotated[i, value]]
        if not found:
            return None
        places = found[int(label * len(found))]
        at = int(places[int(pixel * len(places))])
        strides = [math.prod(samples.target.shape[axis + 1 :]) for axis in range(1, samples.target.ndim)]
        return tuple(at // stride % size for stride, size in zip(strides, samples.target.shape[1:], strict=True))


def places_of_labels(maps: LabelMaps, i: int, counts: Tensor) -> dict[int, Tensor]:
    """Foreground label -> some of its pixels in a map, as indices [m] int64 into the flat map, m <= `PLACES`.

    Args:
        maps: of all samples.
        i: which of them.
        counts: [256], how many pixels of each value it has.
    """
    generator = torch.Generator().manual_seed(i)
    # which of each label's pixels, counted through the map
    ranks = {
        value: torch.randint(int(counts[value]), (min(PLACES, int(counts[value])),), generator=generator).sort().values
        for value in range(1, 255)
        if counts[value]
    }
    found: dict[int, list[Tensor]] = {value: [] for value in ranks}
    seen = torch.zeros(256, dtype=torch.int64)
    _, size, *rest = maps.shape
    rows = max(1, BLOCK // max(1, math.prod(rest)))
    for first in range(0, size if ranks else 0, rows):
        block = maps.box(i, (slice(first, first + rows), *(slice(None) for _ in rest))).flatten()
        labelled = block.nonzero().flatten()
        values = block[labelled]
        order, here = values.argsort(stable=True), torch.bincount(values, minlength=256)
        start = here.cumsum(0) - here
        for value, of_value in ranks.items():
            inside = of_value[(of_value >= seen[value]) & (of_value < seen[value] + here[value])] - seen[value]
            found[value].append(labelled[order[start[value] + inside]] + first * math.prod(rest))
        seen += here
    return {value: torch.cat(parts) for value, parts in found.items()}
