import time

import numpy as np
import pydantic
import pytest
import torch
from scipy import stats

from labeldrop_bench import data
from labeldrop_bench.data import _anatomy, _ultrasound
from labeldrop_bench.data.phantom import PhantomOptions

SMALL = {"train": 6, "validation": 3, "test": 4}


def phantom(**options):
    return data.get("phantom").load(PhantomOptions(**{**SMALL, **options}))


def rng(seed=0):
    return np.random.default_rng(seed)


def test_same_options_same_data_other_seed_other_data():
    first, again, other = phantom(seed=3), phantom(seed=3), phantom(seed=4)
    for name, split in first.splits().items():
        for field in ("images", "target", "annotated", "truth", "domain"):
            assert torch.equal(getattr(split, field)[:], getattr(again.splits()[name], field)[:])
        assert not torch.equal(split.truth[:], other.splits()[name].truth[:])


def test_known_data():
    # Pins the generator: results files of different versions are comparable only while this holds. Label maps are
    # exact but for single pixels on a border, where another machine's sine may round differently.
    dataset = phantom(seed=0)
    counts = torch.bincount(dataset.train.truth[:].flatten().long(), minlength=4)
    torch.testing.assert_close(counts, torch.tensor([41834, 3479, 2304, 1535]), atol=4, rtol=0)


def test_splits_and_domains_hold_different_images():
    images = torch.cat([split.truth[:].flatten(1) for split in phantom().splits().values()])
    assert len(torch.unique(images, dim=0)) == len(images) == 2 * sum(SMALL.values())


def test_gap_moves_style_and_not_anatomy():
    near, far = phantom(gap=0), phantom(gap=2)
    for name, split in near.splits().items():
        assert torch.equal(split.truth[:], far.splits()[name].truth[:])
        assert not torch.equal(split.images[:], far.splits()[name].images[:])


def test_style_numbers():
    n, gap = 4000, 1.0
    same = [_ultrasound.draw_style(n, 0.0, rng(seed)) for seed in (0, 1)]
    a, b = _ultrasound.draw_style(n, -gap, rng(2)), _ultrasound.draw_style(n, gap, rng(3))
    for i in range(len(_ultrasound.STYLE)):
        # Fixed seeds: the bound is one in a thousand for each of six styles, not a lottery on every run.
        assert stats.ks_2samp(same[0][:, i], same[1][:, i]).pvalue > 1e-3
        assert stats.kstest(stats.norm.cdf(np.log(a[:, i] / (1 - a[:, i])) + gap), "uniform").pvalue > 1e-3
        assert stats.kstest(stats.norm.cdf(np.log(b[:, i] / (1 - b[:, i])) - gap), "uniform").pvalue > 1e-3
    # Overlapping, but apart: means sigmoid-normal at -1 and +1 are .30 and .70, standard error .18 / sqrt(4000) = .003.
    np.testing.assert_allclose(a.mean(0), 0.303, atol=0.015)
    np.testing.assert_allclose(b.mean(0), 0.697, atol=0.015)
    assert (a.max(0) > b.mean(0)).all()
    assert (b.min(0) < a.mean(0)).all()


@pytest.mark.parametrize("gap", [0.0, 1.0])
def test_domains_can_be_told_apart_by_their_pictures_only_with_a_gap(gap):
    dataset = phantom(gap=gap, train=150, test=100)

    def features(samples):
        x = samples.images[:][:, 0]
        # Mean brightness in four depths, contrast, fine texture: the least a network can see.
        bands = torch.stack([band.mean((1, 2)) for band in x.chunk(4, dim=1)], 1)
        texture = torch.stack([x.diff(dim=1).abs().mean((1, 2)), x.diff(dim=2).abs().mean((1, 2)), x.amax((1, 2))], 1)
        return torch.cat([bands, texture, torch.ones(len(x), 1)], 1)

    weights = torch.linalg.lstsq(features(dataset.train), dataset.train.domain[:, None] * 2.0 - 1).solution
    right = (features(dataset.test) @ weights)[:, 0].sign() == dataset.test.domain * 2 - 1
    accuracy = right.double().mean().item()
    # 200 test images: at gap 0 the accuracy has mean .5 and standard deviation .035.
    assert abs(accuracy - 0.5) < 0.12 if gap == 0 else accuracy > 0.85


@pytest.mark.parametrize("size", [(64, 64), (96, 64), (33, 71)])
def test_every_image_shows_every_class_inside_the_narrowest_sector(size):
    views = _anatomy.draw_views(1000, size, rng())
    x, y = _anatomy.grid(size)
    visible = _ultrasound.in_sector(x, y, _ultrasound.STYLE["half_angle"][1])
    unit = min(size) ** 2
    # Areas in (shorter side)^2. By the ranges of the parameters (half an ellipse and a tapering end; an ellipse without
    # its cap) the LV has .051 to .096 and the LA .015 to .046; coarse grids round by up to a fifth. The myocardium is a
    # band .04 to .06 wide along three sides of the LV, some .7 to 1.1 long.
    for label, low, high in ((_anatomy.LV, 0.041, 0.115), (_anatomy.LVM, 0.023, 0.08), (_anatomy.LA, 0.012, 0.055)):
        area = (views.labels == label).sum((1, 2)) / unit
        assert area.min() > low
        assert area.max() < high
        assert not ((views.labels == label) & ~visible).any()


def test_parts_of_the_heart_lie_where_they_should():
    views = _anatomy.draw_views(200, (128, 128), rng())
    rows = np.arange(128)[:, None]
    for labels in views.labels:
        lv, lvm, la = (labels == value for value in (_anatomy.LV, _anatomy.LVM, _anatomy.LA))
        assert (rows * la).sum() / la.sum() > (rows * lv).sum() / lv.sum()  # the atrium lies below the ventricle
        top = np.argmax(lv.any(1))
        assert lvm[:top].any()  # the apex is covered by myocardium
        for row in range(top, top + lv.any(1).sum() // 2):
            columns = np.flatnonzero(lv[row])
            assert lvm[row, : columns[0]].any()  # and so are both sides
            assert lvm[row, columns[-1] :].any()


def test_speckle_is_rayleigh_in_even_tissue(monkeypatch):
    # A wide display window so that nothing is clipped, no haze, no attenuation, even tissue.
    plain = {"gain": 0.0, "dynamic_range": 200.0, "attenuation": 0.0, "haze": -150.0, "resolution": 0.01}
    style = {**plain, "half_angle": 40.0}
    monkeypatch.setattr(_ultrasound, "STYLE", {name: (value, value) for name, value in style.items()})
    monkeypatch.setattr(_ultrasound, "FIELD_SD", 0.0)
    echo = np.full((40, 128, 128), -20.0, np.float32)
    pixels = _ultrasound.scan(echo, np.zeros((40, len(style)), np.float32), rng())
    envelope = 10 ** ((pixels[:, 40:100:8, 50:80:10].ravel() - 1) * 200 / 20)
    # Power: E|envelope|^2 = 10^(-20 / 10); samples farther apart than the PSF, so 960 independent ones.
    assert (envelope**2).mean() == pytest.approx(0.01, rel=0.15)
    assert stats.kstest(envelope, stats.rayleigh(scale=np.sqrt(0.01 / 2)).cdf).pvalue > 1e-3


def test_style_shows_in_the_picture():
    echo = _anatomy.draw_views(50, (64, 64), rng()).echo
    names = list(_ultrasound.STYLE)

    def shown(name, number):
        style = np.full((50, len(names)), 0.5, np.float32)
        style[:, names.index(name)] = number
        return _ultrasound.scan(echo, style, rng(1))

    def mean(name, number, rows=slice(None)):
        return shown(name, number)[:, rows].mean()

    assert mean("gain", 1) > mean("gain", 0)
    assert (shown("dynamic_range", 1) == 0).sum() > 1.2 * (shown("dynamic_range", 0) == 0).sum()  # more turns black
    deep = slice(40, 60)
    assert mean("attenuation", 1, deep) < 0.9 * mean("attenuation", 0, deep)
    blood = echo == _anatomy.BLOOD
    assert shown("haze", 1)[blood].mean() > 1.2 * shown("haze", 0)[blood].mean()
    fine, coarse = (np.abs(np.diff(shown("resolution", number), axis=2)).mean() for number in (0, 1))
    assert coarse < 0.8 * fine
    assert (shown("half_angle", 1) > 0).sum() < (shown("half_angle", 0) > 0).sum()


def test_pictures_are_black_outside_the_sector_and_standardised():
    dataset = phantom()
    images = dataset.train.images[:]
    assert images.shape == (12, 1, 64, 64)
    corner = images[:, 0, 0, 0]
    torch.testing.assert_close(corner, images.amin((1, 2, 3)))
    torch.testing.assert_close(images.mean((1, 2, 3)), torch.zeros(12), atol=1e-5, rtol=0)
    torch.testing.assert_close(images.std((1, 2, 3), correction=0), torch.ones(12), atol=1e-5, rtol=0)


def test_everything_is_annotated_and_known_and_every_image_is_a_patient():
    dataset = phantom()
    for name, split in dataset.splits().items():
        assert split.domain.tolist() == [0] * SMALL[name] + [1] * SMALL[name]
        assert split.annotated.all()
        assert split.known.all()
        assert torch.equal(split.target[:], split.truth[:])
        assert split.patients == split.cases
        assert split.cases[-1] == f"B-{name}-{SMALL[name] - 1:04d}"
    assert dataset.domains == ("A", "B")
    assert dataset.label_space.classes == ("background", "LV", "LVM", "LA")


@pytest.mark.parametrize(
    ("size", "shape"), [(16, (16, 16)), (61, (61, 61)), ([40, 97], (40, 97)), ([97, 40], (97, 40))]
)
def test_any_size(size, shape):
    dataset = phantom(size=size)
    assert dataset.train.images.shape == (12, 1, *shape)
    assert dataset.train.truth.shape == (12, *shape)
    assert all(torch.unique(truth).tolist() == [0, 1, 2, 3] for truth in dataset.train.truth[:])


def test_size_changes_sampling_and_not_the_heart():
    coarse, fine = phantom(size=64).train.truth[:], phantom(size=192).train.truth[:]
    # The middle of each 3 x 3 block of the fine grid is the coarse pixel's centre.
    middle = fine[:, 1::3, 1::3]
    # Equal up to borders that pass through a pixel centre, where coordinates differ by rounding.
    assert (middle != coarse).double().mean() < 1e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gap": -0.1}, "gap"),
        ({"gap": float("nan")}, "gap"),
        ({"size": 8}, "size"),
        ({"size": [64, 64, 64]}, "size"),
        ({"train": 0}, "train"),
        ({"seed": -1}, "seed"),
        ({"gaps": 1}, "gaps"),
    ],
)
def test_bad_options_name_the_key(options, message):
    with pytest.raises(pydantic.ValidationError, match=message):
        PhantomOptions(**options)


def test_speed():
    start = time.process_time()
    phantom(train=160, validation=40, test=60)
    # 520 images of 64 x 64 take about half a second; five leave room for a slow or busy machine.
    assert time.process_time() - start < 5
