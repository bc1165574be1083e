import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from labeldrop_bench.data import case_file
from labeldrop_bench.data.arrays import UNSCALED, Images, LabelMaps
from labeldrop_bench.data.base import standardise
from labeldrop_bench.data.case_file import InFiles, Prepared

INDICES = st.one_of(
    st.integers(-5, 4),
    st.builds(slice, st.none() | st.integers(-6, 6), st.none() | st.integers(-6, 6), st.sampled_from([None, 1, 2, -1])),
    st.lists(st.integers(-5, 4), max_size=7).map(lambda places: torch.tensor(places, dtype=torch.int64)),
)

NUMBERS = ("scaling", "pooled", "counts")


def made(folder, n=5, shape=(2, 4, 6), dtype=np.float32, seed=0):
    """Prepared cases: images and label maps as tensors, and as what is read from their files."""
    rng = np.random.default_rng(seed)
    images = (rng.random((n, *shape)) * 200).astype(dtype)
    labels = rng.integers(0, 6, (n, *shape[1:]), dtype=np.uint8)
    labels[:, 0, 0] = 255
    kept = []
    for i in range(n):
        case_file.keep(folder / f"{seed}-{i}.npy", Prepared(images[i], labels[i], (True,)))
        kept.append(case_file.kept(folder / f"{seed}-{i}.npy"))
    numbers = {name: torch.from_numpy(np.stack([getattr(x, name) for x in kept])) for name in NUMBERS}
    images_of = Images.stored(InFiles.images(kept), numbers["scaling"], numbers["pooled"])
    read = images_of, LabelMaps.stored(InFiles.labels(kept), numbers["counts"])
    return (torch.from_numpy(images.astype(np.float32)), torch.from_numpy(labels)), read


def expected_of(tensor, index):
    """What indexing a tensor gives; a slice may go backwards."""
    return tensor[list(range(len(tensor)))[index]] if isinstance(index, slice) else tensor[index]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return made(tmp_path_factory.mktemp("kept"))


@given(INDICES)
def test_what_is_read_is_what_a_tensor_would_give(files, index):
    (images, labels), (read_images, read_labels) = files
    for tensor, read in ((images, Images.of(images)), (labels, LabelMaps.of(labels)), (labels, read_labels)):
        assert torch.equal(read[index], expected_of(tensor, index))
        assert (read.shape, read.ndim, len(read)) == (tuple(tensor.shape), tensor.ndim, len(tensor))
    torch.testing.assert_close(read_images[index], expected_of(standardise(images), index), atol=1e-5, rtol=1e-5)


@given(st.data())
def test_a_box_is_a_part_of_one(files, data):
    (_, _), (images, labels) = files
    place = data.draw(st.integers(0, 4))
    box = tuple(
        slice(*sorted(data.draw(st.lists(st.integers(0, n), min_size=2, max_size=2)))) for n in images.shape[2:]
    )
    assert torch.equal(images.box(place, box), images[place][(slice(None), *box)])
    assert torch.equal(labels.box(place, box), labels[place][box])


@given(st.lists(st.sampled_from(["take", "map", "map each", "join", "replace"]), max_size=6), st.integers(0, 999))
def test_edits_are_tables_that_do_what_the_same_edit_of_pixels_does(files, steps, seed):
    """Any number of edits in any order: maps and counts are those of a tensor that was edited pixel by pixel."""
    (_, expected), (_, maps) = files
    generator = torch.Generator().manual_seed(seed)
    for step in steps:
        n = len(maps)
        if step == "take":
            index = torch.randint(n, (4,), generator=generator)
            expected, maps = expected[index], maps.take(index)
        elif step in ("map", "map each"):
            lookup = torch.randint(256, (256,) if step == "map" else (n, 256), generator=generator).byte()
            expected = torch.stack([lookup.expand(n, -1)[i][expected[i].int()] for i in range(n)])
            maps = maps.mapped(lookup)
        elif step == "join":
            backwards = torch.arange(n).flip(0)
            expected, maps = torch.cat([expected, expected[backwards]]), LabelMaps.joined([maps, maps.take(backwards)])
        else:
            new = torch.randint(256, expected.shape[1:], generator=generator).byte()
            expected = torch.cat([new[None], expected[1:]])
            maps = maps.replaced({0: new})
    assert torch.equal(maps[:], expected)
    counts = torch.stack([torch.bincount(one.flatten().int(), minlength=256) for one in expected])
    assert torch.equal(maps.counts.long(), counts)
    assert torch.equal(maps.unique(), expected.unique())


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_images_are_standardised_when_they_are_read(tmp_path, dtype):
    """The same formula as `standardise`, with sums in float64; a constant channel becomes 0, whatever its value."""
    image = (np.random.default_rng(1).random((3, 32, 32)) * 255).astype(dtype)
    image[1] = 37
    case_file.keep(tmp_path / "x", Prepared(image, np.zeros((32, 32), np.uint8), (True,)))
    kept = case_file.kept(tmp_path / "x")
    scaling, pooled = torch.from_numpy(kept.scaling)[None], torch.from_numpy(kept.pooled)[None]
    read = Images.stored(InFiles.images([kept]), scaling, pooled)[0]
    torch.testing.assert_close(read, standardise(torch.from_numpy(image.astype(np.float32))[None])[0])
    assert not read[1].any()


def test_scaling_clips_first():
    images = Images.of(torch.tensor([-9.0, 0, 1, 2, 9]).view(1, 1, 5).repeat(1, 2, 1))
    scaled = images.scaled(torch.tensor([[[0.0, 4.0, 1.0, 2.0], UNSCALED]]))
    assert scaled[0].tolist() == [[-0.5, -0.5, 0, 0.5, 1.5], [-9, 0, 1, 2, 9]]
    both = Images.joined([images, scaled])
    assert torch.equal(both[:], torch.cat([images[:], scaled[:]]))
    assert torch.equal(both.take(torch.tensor([1]))[0], scaled[0])


def test_what_is_given_is_the_callers_own(files):
    (images, labels), _ = files
    for tensor, read in ((images, Images.of(images)), (labels, LabelMaps.of(labels))):
        before = tensor.clone()
        read[0].zero_()
        read[:].zero_()
        assert torch.equal(tensor, before)


def test_a_file_that_is_gone_or_cut_off_is_named(tmp_path):
    _, (images, labels) = made(tmp_path)
    (tmp_path / "0-2.npy").write_bytes((tmp_path / "0-2.npy").read_bytes()[:-1])
    (tmp_path / "0-1.npy").unlink()
    for name, read in (("0-1.npy", images.take(torch.tensor([1]))), ("0-2.npy", labels.take(torch.tensor([2])))):
        with pytest.raises(OSError, match=re.escape(str(tmp_path / name)) + ".*the same call again prepares it anew"):
            read[:]
    assert len(labels[torch.tensor([0, 3])]) == 2  # the others can still be read


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Images.of(torch.zeros(2, 1, 5, 6, dtype=torch.float64)), TypeError, "must be torch.float32, got"),
        (lambda: Images.of(torch.zeros(2, 1)), ValueError, r"must be \[n, channels, \*spatial\], got shape \(2, 1\)"),
        (lambda: LabelMaps.of(torch.zeros(2, 5, 6, dtype=torch.int64)), TypeError, "must be torch.uint8, got"),
        (lambda: Images.of(torch.zeros(2, 1, 4))[torch.ones(2, dtype=torch.bool)], TypeError, "int64 tensor .*bool"),
        (lambda: Images.of(torch.zeros(2, 1, 4))[2], IndexError, "out of range"),
        (
            lambda: Images.joined([Images.of(torch.zeros(1, 1, side)) for side in (4, 5)]),
            ValueError,
            r"one shape, got \[\(1, 4\), \(1, 5\)\]",
        ),
    ],
)
def test_errors(make, error, message):
    with pytest.raises(error, match=message):
        make()
