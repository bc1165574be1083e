import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeldrop_bench.data import split
from labeldrop_bench.data.split import grouped_split

FRACTIONS = (0.55, 0.15, 0.3)


@given(st.lists(st.tuples(st.integers(0, 15), st.integers(0, 2)), min_size=1, max_size=60), st.integers(0, 99))
def test_groups_stay_together_and_the_split_is_repeatable(samples, seed):
    groups, domains = [f"g{group}" for group, _ in samples], [domain for _, domain in samples]
    part = grouped_split(groups, domains, FRACTIONS, seed)
    assert part.shape == (len(samples),)
    assert set(part.tolist()) <= {0, 1, 2}
    for group in set(groups):
        assert len({int(p) for p, g in zip(part, groups, strict=True) if g == group}) == 1
    np.testing.assert_array_equal(part, grouped_split(groups, domains, FRACTIONS, seed))


@given(st.integers(3, 80), st.integers(3, 80), st.integers(0, 99))
def test_groups_of_one_are_divided_by_the_fractions_in_every_domain(first, second, seed):
    domains = [0] * first + [1] * second
    part = grouped_split([str(i) for i in range(len(domains))], domains, FRACTIONS, seed)
    for domain, total in ((0, first), (1, second)):
        for i, fraction in enumerate(FRACTIONS):
            count = int(((part == i) & (np.asarray(domains) == domain)).sum())
            # Each sample goes where most is lacking, so no part is ever more than one sample ahead of what it asks.
            assert abs(count - fraction * total) <= 1 + 1e-9


@given(st.lists(st.integers(1, 4), min_size=3, max_size=9), st.lists(st.integers(1, 4), min_size=3), st.integers(0, 99))
def test_three_groups_are_enough_for_three_parts(first, second, seed):
    """Whatever the fractions: a part of a domain that nobody could train on or score by is worth nothing."""
    groups = [
        f"{domain}{g}" for domain, sizes in enumerate((first, second)) for g, n in enumerate(sizes) for _ in range(n)
    ]
    domains = [int(group[0]) for group in groups]
    part = grouped_split(groups, domains, (0.8, 0.1, 0.1), seed)
    assert {*zip(part.tolist(), domains, strict=True)} == {(p, d) for p in range(3) for d in range(2)}


def test_a_part_that_asks_for_nothing_gets_nothing():
    assert np.bincount(grouped_split([*"abcd"], [0] * 4, (0.9, 0.1, 0.0), 0), minlength=3).tolist() == [3, 1, 0]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2)), min_size=1, max_size=20), st.integers(0, 99))
def test_filling_an_empty_part_empties_no_other(samples, seed):
    """Whatever groups span: a domain keeps every part that it had before groups were moved."""
    groups, domains = [f"g{group}" for group, _ in samples], [domain for _, domain in samples]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(split, "_fill_empty", lambda *_: None)
        before = {*zip(grouped_split(groups, domains, (0.8, 0.1, 0.1), seed).tolist(), domains, strict=True)}
    assert before <= {*zip(grouped_split(groups, domains, (0.8, 0.1, 0.1), seed).tolist(), domains, strict=True)}


def test_another_seed_gives_another_split():
    groups = [str(i) for i in range(40)]
    first, second = (grouped_split(groups, [0] * 40, FRACTIONS, seed) for seed in (0, 1))
    assert (first != second).any()


def test_a_group_across_domains_counts_in_both():
    groups = [f"pair{i}" for i in range(20)] * 2
    domains = [0] * 20 + [1] * 20
    part = grouped_split(groups, domains, (0.5, 0.25, 0.25), 0)
    np.testing.assert_array_equal(part[:20], part[20:])
    assert np.bincount(part[:20]).tolist() == [10, 5, 5]
