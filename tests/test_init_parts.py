"""What `labeldrop-bench init` concludes from names and sizes, and how it writes them."""

from __future__ import annotations

import math
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeldrop_bench.data.base import Grid
from labeldrop_bench.init import names, plan, toml
from labeldrop_bench.init.folders import InitError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def files(*listed: str) -> dict[str, str]:
    return {name: name for name in listed}


def numbered(*prefixes: str, each: int = 3) -> dict[str, str]:
    return files(*(f"{prefix}{i:03}" for prefix in prefixes for i in range(each)))


@pytest.mark.parametrize(
    ("found", "domains"),
    [
        (numbered("hospA_", "hospB_"), {"hospA": ("hospA_*",), "hospB": ("hospB_*",)}),
        (numbered("Leeds", "Bern"), {"Leeds": ("Leeds[0-9]*",), "Bern": ("Bern[0-9]*",)}),
        (numbered("site1_", "site2_"), {"site1": ("site1_*",), "site2": ("site2_*",)}),
        (numbered("a[x]_", "b-"), {"a[x]": ("a[[]x]_*",), "b": ("b-*",)}),
        (numbered("patient1_", "patient2_"), {}),  # these differ in a number alone
        (numbered("train_", "test_"), {}),
        (numbered("BRATS_"), {}),
        (numbered("a_", "b_", each=2), {}),  # too few for three splits
        (numbered(*(f"{letter}_" for letter in "abcdefghijk")), {}),
        (files("a_1", "a_2", "a_3", "b_1", "b_2", "b_3", "none"), {}),
        (files("001_a", "002_a", "003_a"), {}),
    ],
)
def test_hospitals_in_names(found: dict[str, str], domains: dict[str, tuple[str, ...]]) -> None:
    assert {part.name: part.patterns for part in names.parts(found)} == domains


@pytest.mark.parametrize(
    ("found", "pattern", "evident"),
    [
        (files("patient1_2CH", "patient1_4CH", "patient2_2CH", "patient2_4CH", "patient3_2CH"), "patient", True),
        (files("x-Sub-01_a", "x-Sub-01_b", "x-Sub-02_a", "x-Sub-02_b", "x-Sub-03_a", "x-Sub-03_b"), "Sub", True),
        (files("S_sub-369B_1", "S_sub-369B_2", "S_sub-rat1_1", "S_sub-rat1_2", "sub-x_1"), "(sub-[0-9A-Za-z]+)", True),
        (files("h1_a", "h1_b", "h2_a", "h2_b", "h3_a", "h3_b"), "^(.*?[0-9]+)[-_ ]", False),
        (numbered("BRATS_", each=9), None, False),
        (files("patient1_a", "patient1_b", "patient2_a", "patient2_b"), None, False),  # too few for three splits
        (files("patient1_a", "patient1_b", "other"), None, False),
    ],
)
def test_patients_in_names(found: dict[str, str], pattern: str | None, evident: bool) -> None:
    got, said = names.patients(found)
    assert said == evident
    assert got is None if pattern is None else pattern in str(got)


def test_spellings() -> None:
    known = names.spellings([["Left Atrium", "LV"], ["left_atrium", "lv", "LA", "la"]])
    second = ["left_atrium", "lv", "LA", "la"]
    assert [names.spelled(label, second, known) for label in second] == ["Left Atrium", "LV", "LA", "la"]


def grids(*shapes: tuple[int, ...], spacing: tuple[float, ...] | None = None) -> list[Grid]:
    return [Grid(shape, spacing) for shape in shapes]


@given(
    st.lists(st.tuples(*3 * [st.integers(1, 700)]), min_size=1, max_size=9),
    st.tuples(*3 * [st.floats(0.2, 8)]),
    st.integers(1, 500),
    st.integers(2, 130),
)
def test_volumes_are_made_affordable(
    shapes: list[tuple[int, ...]], spacing: tuple[float, ...], number: int, classes: int
) -> None:
    """Whatever their size; and the network takes what it is shown."""
    made = plan.make(grids(*shapes, spacing=spacing), number, classes)
    seen = made.patch or made.size
    assert math.prod(made.size) <= plan.MOST_PIXELS[3]
    assert math.prod(seen) <= max(plan.MOST_SEEN[3], 16**3)
    for sides in (made.size, seen):
        assert all(side % 2 ** (len(made.channels) - 1) == 0 for side in sides)
    assert made.batch_size <= max(2, number * made.per_image)
    assert 1 <= made.validate_every <= made.epochs


def test_large_volumes_become_coarser_in_their_fine_axes_first() -> None:
    made = plan.make(grids((40, 512, 512), (44, 512, 512), spacing=(5.0, 0.8, 0.8)), 20, 4)
    assert made.spacing is not None
    assert made.spacing[0] == 5.0
    assert made.spacing[1] == made.spacing[2] > 1.6
    assert made.coarser
    assert made.patch == (48, 64, 80)
    small = plan.make(grids((30, 30, 30), (34, 40, 30), (31, 200, 30), spacing=(1.0, 1.0, 1.0)), 20, 4)
    assert (small.spacing, small.size, small.patch, small.whole) == ((1, 1, 1), (48, 64, 32), None, (2, 3))


def test_pictures_are_made_affordable() -> None:
    made = plan.make(grids((1080, 1920)), 100, 3)
    assert made.size == (192, 336)
    assert made.coarser
    assert made.sample_spacing is None
    assert plan.make(grids((60, 70), (61, 70), (62, 90), spacing=(0.5, 0.5)), 100, 3).size == (64, 64)


def test_many_classes_get_the_network_that_they_cost_little_in() -> None:
    assert [plan.make(grids((64, 64, 64)), 20, classes).network for classes in (4, 100)] == ["unet", "dynunet"]


NAMES = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.one_of(NAMES, st.booleans(), st.integers(-(2**31), 2**31), st.floats(allow_nan=False, allow_infinity=False)),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(NAMES, inner)),
)


@given(st.dictionaries(NAMES, VALUES))
def test_what_is_written_is_read_back(table: dict[str, Any]) -> None:
    text = "".join(f"{toml.key(name)} = {toml.value(value)}  # {toml.comment(name)}\n" for name, value in table.items())
    assert tomllib.loads(text) == table


def test_names_that_are_not_unicode_are_refused() -> None:
    with pytest.raises(InitError, match="not UTF-8 and cannot be written into a suite file; rename it"):
        toml.value("h\udcf6rz")
