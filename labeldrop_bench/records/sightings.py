"""In how many images a network finds a class, and how large: what can be seen without truth.

A class is *present* in an image if at least a tenth as many pixels are predicted to be of it as in the median image of
the domains in which it was annotated. A stray pixel is thus no presence. The median is that of the same network, of
images with any pixel of the class, and of domains in which the network was taught it: so there is nothing to choose for
each class, a small structure is not measured by a large one, a class that few images show does not have the median 0,
and the domain in question cannot lower the bar for itself. A tenth is far below what anatomy varies by between
patients, and far above a speck. Where a class was annotated nowhere, all domains stand in.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping

from labeldrop_bench.records.results import CaseRow

SHARE = 0.1  # of the median size that makes a presence

Place = tuple[str, str]  # domain, class
Sighting = tuple[float | None, int]  # value, number of images


def sightings(cases: Iterable[CaseRow], annotated: Mapping[Place, bool]) -> dict[Place, dict[str, Sighting]]:
    """Where and how large the classes are found by one run.

    Args:
        cases: all that were recorded; those without a size do not count.
        annotated: (domain, class) of every case -> was it annotated in that domain's training data?

    Returns:
        (domain, class) -> `SIGHTINGS` -> value and number of images. presence: share of the domain's images in which
        the class is present. size: mean number of pixels in those, None if there are none.
    """
    sizes: dict[str, dict[str, list[int]]] = {}  # class -> domain -> sizes
    for case in cases:
        if case.size is not None:
            sizes.setdefault(case.class_, {}).setdefault(case.domain, []).append(case.size)
    found: dict[Place, dict[str, Sighting]] = {}
    for name, by_domain in sizes.items():
        taught = [size for domain, of in by_domain.items() if annotated[domain, name] for size in of]
        least = least_size(taught or [size for of in by_domain.values() for size in of])
        for domain, of in by_domain.items():
            present = [size for size in of if size >= least]
            mean = statistics.fmean(present) if present else None
            found[domain, name] = {"presence": (len(present) / len(of), len(of)), "size": (mean, len(present))}
    return found


def least_size(sizes: Iterable[int]) -> float:
    """Pixels that make a presence; one where the class is never found."""
    found = [size for size in sizes if size]
    return max(1.0, SHARE * statistics.median(found)) if found else 1.0
