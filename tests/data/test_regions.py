import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from labeldrop_bench.data._regions import annotated_labels, label_space_of_regions

BRATS = {"whole": (1, 2, 3), "core": (2, 3), "enhancing": (3,)}
HEART = ("LV", "LVM", "LA")


def meaning(regions, classes_of=None):
    """Stored value -> names of the classes it may be; and the label space."""
    space, value_of = label_space_of_regions(regions, classes_of or {})
    return {v: {space.classes[c] for c in space.labels[i].classes} for v, i in value_of.items()}, space


def test_single_values_are_classes_in_order():
    found, space = meaning({"LV": (2,), "LA": (1,)})
    assert space.classes == ("background", "LV", "LA")
    assert [label.name for label in space.labels] == ["background", "LV", "LA"]
    assert found == {0: {"background"}, 2: {"LV"}, 1: {"LA"}}


def test_nested_regions_are_classes_of_what_is_in_no_smaller_one():
    found, space = meaning(BRATS)
    assert space.classes == ("background", "whole", "core", "enhancing")
    assert found == {0: {"background"}, 1: {"whole"}, 2: {"core"}, 3: {"enhancing"}}


def test_a_region_that_smaller_ones_fill_is_no_class():
    found, space = meaning({"heart": (1, 2), "LV": (1,), "LA": (2,)})
    assert space.classes == ("background", "LV", "LA")
    assert found == {0: {"background"}, 1: {"LV"}, 2: {"LA"}}


def test_a_region_of_several_classes_is_a_super_label():
    found, space = meaning({"whole heart": (1, 2, 3)}, {"whole heart": HEART})
    assert space.classes == ("background", *HEART)
    assert [label.name for label in space.labels] == ["background", "whole heart"]
    assert found == {0: {"background"}, **{value: set(HEART) for value in (1, 2, 3)}}


def test_a_part_that_is_drawn_leaves_the_rest_to_the_super_label():
    """Heart and, in it, the LV: what is heart but not LV is LVM or LA."""
    found, space = meaning({"heart": (1, 2), "LV": (1,)}, {"heart": HEART})
    assert found == {0: {"background"}, 1: {"LV"}, 2: {"LVM", "LA"}}
    assert [label.name for label in space.labels] == ["background", "LV", "LVM or LA"]


def test_another_name_for_a_class():
    assert meaning({"left ventricle": (4,)}, {"left ventricle": ("LV",)})[0] == {0: {"background"}, 4: {"LV"}}


def test_regions_that_overlap_in_part_need_names():
    regions = {"a": (1, 2), "b": (2, 3)}
    with pytest.raises(ValueError, match=r"no class is in all of a, b and in nothing else.* value 2 .*classes_of"):
        meaning(regions)
    found, _ = meaning(regions, {"a": ("only a", "both"), "b": ("both", "only b")})
    assert found == {0: {"background"}, 1: {"only a"}, 2: {"both"}, 3: {"only b"}}


def test_two_names_for_the_same_values_are_an_error():
    with pytest.raises(ValueError, match="no class is in all of a, b"):
        meaning({"a": (1,), "b": (1,)})


REGIONS = st.dictionaries(st.sampled_from("abcd"), st.frozensets(st.integers(1, 5), min_size=1), min_size=1)
CLASSES = st.dictionaries(st.sampled_from("abcd"), st.frozensets(st.sampled_from("pqrst"), min_size=1))


@given(REGIONS, CLASSES)
def test_the_rule(regions, classes_of):
    """A class fits a value if it is in the regions that hold the value and in no other."""
    classes_of = {name: tuple(sorted(c)) for name, c in classes_of.items() if name in regions}
    try:
        found, space = meaning(regions, classes_of)
    except ValueError:
        assume(False)
    assert set(found) == {0}.union(*regions.values())
    for value, classes in found.items():
        for name in regions:
            if name in classes_of:
                inside = classes <= set(classes_of[name])
                assert inside == (value in regions[name])
                assert inside or not classes & set(classes_of[name])
    assert len({label.classes for label in space.labels}) == len(space.labels)


@pytest.mark.parametrize(
    ("regions", "classes_of", "named", "expected"),
    [
        ({"LV": (2,), "LA": (1,)}, {}, ["LA"], ["LA"]),
        ({"LV": (2,), "LA": (1,)}, {"LA": ["left atrium"]}, ["LA"], ["left atrium"]),
        ({"LV": (2,), "LA": (1,)}, {}, [], []),
        (BRATS, {}, ["core", "enhancing"], ["core", "enhancing"]),
        (BRATS, {}, [*BRATS], ["whole", "core", "enhancing"]),
        ({"whole heart": (1, 2, 3), "LA": (4,)}, {"whole heart": HEART[:2]}, ["whole heart"], ["whole heart"]),
    ],
)
def test_annotated_regions_are_labels_of_the_space(regions, classes_of, named, expected):
    space, value_of = label_space_of_regions(regions, classes_of)
    assert annotated_labels("here", named, regions, space, value_of) == expected


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (["wohle"], "here: there is no label 'wohle'; did you mean 'whole'"),
        # what is drawn as the whole may be its core as well
        (["whole"], "here: 'whole' is annotated without 'core' inside of it"),
        (["whole", "core"], "here: 'whole' is annotated without 'enhancing' inside of it"),
    ],
)
def test_regions_that_cannot_be_told_apart_are_refused(named, message):
    space, value_of = label_space_of_regions(BRATS, {})
    with pytest.raises(ValueError, match=message):
        annotated_labels("here", named, BRATS, space, value_of)
