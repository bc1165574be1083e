import os
from pathlib import Path

import numpy as np
import pydantic
import pytest
import torch
from PIL import Image

from labeldrop_bench import data
from labeldrop_bench.data import decode, folder
from labeldrop_bench.data.base import VARIABLE
from labeldrop_bench.data.folder import FolderOptions
from labeldrop_bench.data.prepare import Case

LABELS = {"nerve": 1, "vessel": 2}


def load(root, **options):
    options = {"labels": LABELS, "size": 32, **options}
    return data.get("folder").load(FolderOptions(root=root, **options))


def counts(dataset):
    """Samples of each domain in train, validation, test."""
    return [torch.bincount(s.domain, minlength=len(dataset.domains)).tolist() for s in dataset.splits().values()]


def everything(dataset, field):
    return torch.cat([getattr(split, field)[:] for split in dataset.splits().values()])


@pytest.fixture
def ten(make_folder, picture):
    """Ten pictures of 32 x 40 (width x height), ten of 48 x 40."""
    first = {f"a{i}.png": picture(i) for i in range(10)}
    second = {f"b{i}.png": picture(100 + i, width=48) for i in range(10)}
    return make_folder({**first, **second})


BY_SIZE = {"small": "32x40", "large": ["48x40"]}


def test_domains_by_size(ten):
    dataset = load(ten, domains=BY_SIZE, validation=0.2, test=0.3)
    assert dataset.domains == ("small", "large")
    assert dataset.label_space.classes == ("background", "nerve", "vessel")
    assert counts(dataset) == [[5, 5], [2, 2], [3, 3]]
    for split in dataset.splits().values():
        assert split.annotated.all()
        assert split.known.all()
        assert torch.equal(split.target[:], split.truth[:])
        assert [case[0] for case in split.cases] == ["ab"[d] for d in split.domain.tolist()]


def test_domains_by_pattern_leave_other_files_out(ten):
    dataset = load(ten, domains={"x": ["a*.png"], "y": ["b[0-4].png"]}, validation=0.2, test=0.2)
    assert np.sum(counts(dataset), axis=0).tolist() == [10, 5]


def test_one_domain_by_default_and_a_repeatable_split(ten):
    first, again, other = load(ten), load(ten), load(ten, seed=1)
    assert first.domains == ("all",)
    assert torch.equal(first.test.images[:], again.test.images[:])
    assert not torch.equal(first.test.images[:], other.test.images[:])
    assert len(torch.unique(everything(first, "images").flatten(1), dim=0)) == 20


@pytest.mark.parametrize("palette", [True, False])
def test_pixels_and_label_values(make_folder, palette):
    """Without a change of size the arrays come back; values of the mask become classes in the order of `labels`."""
    image = np.arange(32 * 32, dtype=np.uint8).reshape(32, 32)
    mask = np.zeros((32, 32), np.uint8)
    mask[3:7, 5:9], mask[20:30, 1:4] = 7, 200
    files = {f"{i}.png": (np.roll(image, i), np.roll(mask, i)) for i in range(3)}
    dataset = load(make_folder(files, palette), labels={"b": 200, "a": 7}, validation=0.3, test=0.3)
    assert dataset.label_space.classes == ("background", "b", "a")
    grey = image.astype(np.float64) / 255
    expected = torch.tensor((grey - grey.mean()) / grey.std())
    truth = torch.tensor(np.select([mask == 200, mask == 7], [1, 2]))
    found = 0
    for i in range(3):
        for got, label in zip(everything(dataset, "images"), everything(dataset, "truth"), strict=True):
            if torch.equal(label.long(), truth.flatten().roll(i).view(32, 32)):
                found += 1
                # float32 against float64: values up to 2, so 1e-6 is about four roundings.
                torch.testing.assert_close(got[0].double(), expected.flatten().roll(i).view(32, 32), atol=2e-6, rtol=0)
    assert found == 3


def test_grey_is_one_fixed_rule(make_folder, picture):
    """Colour is read by ITU-R 601 luma; a grey image stored as RGB, RGBA or palette reads like the grey one."""
    grey, mask = picture(0)
    colour = np.random.default_rng(1).integers(0, 256, (*grey.shape, 3), dtype=np.uint8)
    same = {
        "grey.png": grey,
        "rgb.png": np.stack([grey] * 3, -1),
        "rgba.png": np.stack([grey] * 3 + [0 * grey + 255], -1),
    }
    root = make_folder({name: (image, mask) for name, image in {**same, "colour.png": colour}.items()})
    Image.fromarray(grey).convert("P").save(root / "images" / "palette.png")
    Image.fromarray(mask).save(root / "masks" / "palette.png")
    read = folder.Read(tuple(LABELS.items()), grey.shape)
    shown = {
        name: read(Case(name, name, 0, (root / "images" / name, root / "masks" / name))).image[0]
        for name in (*same, "palette.png", "colour.png")
    }
    for name in (*same, "palette.png"):
        np.testing.assert_array_equal(shown[name], grey)
    # Pillow rounds the weighted sum to whole levels with 16-bit weights: at most half a level and a hair.
    np.testing.assert_allclose(shown["colour.png"], colour @ [0.299, 0.587, 0.114], atol=0.51)


def test_resizing_averages_the_image_and_picks_from_the_mask(make_folder):
    """Twice the pixels in each direction; a checkerboard of single pixels averages out, labels stay labels."""
    board = np.indices((64, 64)).sum(0) % 2 * 250
    image = np.where(np.arange(64) < 32, board, 0).astype(np.uint8)
    mask = np.repeat(np.repeat(np.random.default_rng(0).integers(0, 3, (32, 32), dtype=np.uint8), 2, 0), 2, 1)
    files = {f"{i}.png": (np.roll(image, 2 * i, 0) + np.uint8(i), mask) for i in range(3)}
    dataset = load(make_folder(files), validation=0.3, test=0.3)
    truth = everything(dataset, "truth")
    assert (truth == torch.from_numpy(mask[::2, ::2])).all()
    left = everything(dataset, "images")[0, 0, 2:-2, 2:14]
    assert left.std() < 0.05 * everything(dataset, "images")[0].std()


def test_size_is_height_and_width(ten):
    assert load(ten, size=[24, 50]).train.images.shape[1:] == (1, 24, 50)


def test_the_default_size_is_the_median_of_the_images(make_folder, picture):
    """In multiples of 16, the nearest one, of what is shown: the third picture is stored lying on its side."""
    drawings = {f"{i}.png": picture(i, height=40 + i, width=32 + i) for i in range(5)}
    root = make_folder(drawings)
    assert load(root, size=None).train.images.shape[2:] == (48, 32)  # of (42, 34)
    turned = Image.fromarray(drawings["2.png"][0].T)
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode.read_size(_saved(turned, root / "x.jpg", exif), shown=True) == (34, 42)
    assert decode.read_size(root / "x.jpg") == (42, 34)


def _saved(picture, path, exif):
    picture.save(path, exif=exif)
    return path


def test_three_pictures_are_a_split(make_folder, picture):
    """A tenth of three is none, but each split gets one."""
    dataset = load(make_folder({f"{i}.png": picture(i) for i in range(3)}), validation=0.1, test=0.1)
    assert counts(dataset) == [[1], [1], [1]]


def test_groups_by_file_name_stay_in_one_split(make_folder, picture):
    files = {f"p{patient}_f{frame}.png": marked(picture, patient, frame) for patient in range(6) for frame in range(3)}
    dataset = load(make_folder(files), group=r"p(\d+)_", validation=0.2, test=0.3)
    assert sorted(counts(dataset)) == [[3], [6], [9]]
    assert not any(set(a) & set(b) for a, b in pairs_of_splits(dataset))


def test_together_joins_groups(make_folder, picture):
    files = {f"p{patient}_f{frame}.png": marked(picture, patient, frame) for patient in range(6) for frame in range(2)}
    root = make_folder(files)
    together = [["p0_f0", "p1_f1"], ["p1_f0", "p2_f0"]]
    for seed in range(5):
        dataset = load(root, group=r"p\d+", together=together, validation=0.2, test=0.2, seed=seed)
        homes = [patients(split) for split in (dataset.train, dataset.validation, dataset.test)]
        assert [sum(home.count(p) for p in (0, 1, 2)) for home in homes].count(6) == 1


def marked(picture, patient, frame):
    """A picture whose mask tells the patient: a bar of that many pixels and one more of label 1."""
    image, mask = picture(10 * patient + frame, 32, 32)
    mask[:] = 0
    mask[0, : patient + 1] = 1
    return image, mask


def patients(split):
    return [int((truth == 1).sum()) - 1 for truth in split.truth[:]]


def pairs_of_splits(dataset):
    homes = [patients(split) for split in (dataset.train, dataset.validation, dataset.test)]
    return [(homes[0], homes[1]), (homes[0], homes[2]), (homes[1], homes[2])]


def test_root_comes_from_the_option_or_the_environment(ten, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(ValueError, match=f"folder: set root .* or folder .*{VARIABLE}"):
        FolderOptions(labels=LABELS).find_root()
    with pytest.raises(ValueError, match=f"folder's root.*{VARIABLE}.*holds x"):
        FolderOptions(labels=LABELS, folder="x").find_root()
    monkeypatch.setenv(VARIABLE, str(ten.parent))
    assert FolderOptions(labels=LABELS, folder=ten.name).find_root() == ten
    monkeypatch.setenv(VARIABLE, "/nowhere")
    assert FolderOptions(labels=LABELS, root=ten, folder="other").find_root() == ten
    with pytest.raises(FileNotFoundError, match="folder: root must be a folder, and there is none at /nowhere/x"):
        load(None, folder="x")
    (ten / "masks").rename(ten / "mask")
    with pytest.raises(FileNotFoundError, match=r"images/ and masks/; not there: \S+/masks$"):
        load(ten)


def test_all_problems_are_listed_at_once(ten):
    (ten / "masks" / "a0.png").unlink()
    (ten / "images" / "b0.png").unlink()
    (ten / "images" / "a1.png").write_bytes(b"no image")
    whole = (ten / "images" / "a2.png").read_bytes()
    (ten / "images" / "a2.png").write_bytes(whole[: len(whole) // 2])
    Image.new("P", (9, 40)).save(ten / "masks" / "a3.png")
    Image.fromarray(np.full((40, 32), 5, np.uint8)).save(ten / "masks" / "a4.png")
    Image.new("RGB", (32, 40)).save(ten / "masks" / "a5.png")
    Image.new("CMYK", (32, 40)).save(ten / "images" / "a6.jpg")
    (ten / "images" / "a6.png").unlink()
    with pytest.raises(ValueError, match="8 problem") as error:
        load(ten, domains=BY_SIZE)
    for line in (
        "images/a0.png: no mask of that name",
        "masks/b0.png: no image of that name",
        "images/a1.png: cannot be read",
        "images/a2.png: cannot be read",
        "masks/a3.png: 9 x 40 pixels, but a3.png has 32 x 40 pixels",
        "masks/a4.png: label values [5] are unknown; known: [0, 1, 2]",
        "masks/a5.png: pixel format of a label map must be one of 1, L, LA, P, PA, I;16",
        "images/a6.jpg: pixel format must be one of 1, L, LA, P, PA, RGB, RGBA, YCbCr, I;16",
    ):
        assert str(ten / line) in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"domains": {"x": "a*", "y": "32x40"}}, "a0.png: in more than one domain: x, y"),
        ({"domains": {"x": "a*", "y": ["40x32", "c*"]}}, r"no file for domain 'y' = \['40x32', 'c\*'\]"),
        ({"group": r"^a\d"}, r"b0.png: group = '\^a\\\\d' does not match the file name"),
        ({"together": [["a0", "c0"]]}, "c0: named in together, but not there"),
        (
            {"domains": {"x": "a[01].png"}},
            r"split 'validation' has no image of domain 'x' \(2 image\(s\) of 2 patient\(s\) in all",
        ),
        ({"group": r"[ab]"}, r"no image of domain 'all' \(20 image\(s\) of 2 patient.*keys group, together"),
    ],
)
def test_errors_of_domains_groups_and_splits(ten, options, message):
    with pytest.raises(ValueError, match=message):
        load(ten, **options)


def test_same_pixels_in_two_groups_are_an_error(ten, picture):
    image, mask = picture(0)
    Image.fromarray(np.stack([image] * 3, -1)).save(ten / "images" / "c0.png")
    Image.fromarray(mask).save(ten / "masks" / "c0.png")
    with pytest.raises(ValueError, match=r"c0.png: duplicate, the same pixels as a0.png.*together"):
        load(ten)
    assert len(everything(load(ten, together=[["a0", "c0"]]), "images")) == 21
    with pytest.warns(UserWarning, match="1 problem.*duplicates"):
        rest = load(ten, skip_bad=True)
    assert len(everything(rest, "images")) == 20
    assert "c0.png: duplicate" in rest.skipped[0]


def test_bad_pictures_can_be_left_out(ten):
    (ten / "masks" / "a0.png").unlink()
    (ten / "images" / "a1.png").write_bytes(b"no image")
    Image.fromarray(np.full((40, 32), 5, np.uint8)).save(ten / "masks" / "a4.png")
    with pytest.warns(UserWarning, match="3 problem"):
        dataset = load(ten, skip_bad=True)
    assert len(everything(dataset, "images")) == 17
    assert [line.split(":")[0][-6:] for line in dataset.skipped] == ["a0.png", "a1.png", "a4.png"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": {}}, "labels"),
        ({"labels": {"nerve": 0}}, "labels.nerve"),
        ({"labels": {"nerve": 1, "vessel": 1}}, "labels must have different values"),
        ({"labels": {"background": 1}}, "leave background out"),
        ({"validation": 0.6, "test": 0.4}, "must leave something to training"),
        ({"group": "("}, "group must be a regular expression"),
        ({"domains": {}}, "domains"),
        ({"sizes": 3}, "sizes"),
    ],
)
def test_bad_options_name_the_key(options, message):
    with pytest.raises(pydantic.ValidationError, match=message):
        FolderOptions(**{"labels": LABELS, **options})


def test_colour_is_kept_where_it_is_asked_for(make_folder, picture):
    """JPEG images with PNG masks too, as photographs come; a grey picture among them has three equal channels."""
    colours = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    root = make_folder({f"{i}.png": (colours[i], picture(i, 32, 32)[1]) for i in range(6)})
    (root / "images" / "0.png").unlink()
    Image.fromarray(colours[0]).save(root / "images" / "0.jpg", quality=95)
    Image.fromarray(colours[1, ..., 0]).save(root / "images" / "1.png")
    dataset = load(root, channels="rgb")
    images = dict(zip(names(dataset), everything(dataset, "images"), strict=True))
    assert images["0"].shape == (3, 32, 32)
    for name, expected in (("2", colours[2]), ("1", colours[1, ..., [0, 0, 0]].transpose(1, 2, 0))):
        channels = torch.from_numpy(expected.copy()).double().permute(2, 0, 1)
        sd = channels.std((1, 2), correction=0, keepdim=True)
        wanted = (channels - channels.mean((1, 2), keepdim=True)) / sd
        torch.testing.assert_close(images[name].double(), wanted, atol=1e-5, rtol=0)
    assert load(root).train.images.shape[1] == 1
    assert load(root).train.spacing.isnan().all()


def names(dataset):
    return [case for split in dataset.splits().values() for case in split.cases]


def test_no_file_is_passed_over_in_silence(ten, picture):
    """Endings in capitals count, hidden files do not; whatever else is not taken is told with the reason."""
    for part in ("images", "masks"):
        (ten / part / "a0.png").rename(ten / part / "a0.PNG")
        (ten / part / "._a1.png").write_bytes(b"\0\5\x16\7")
        (ten / part / ".DS_Store").touch()
    (ten / "images" / "notes.txt").touch()
    (ten / "images" / "a2.gif").touch()
    (ten / "masks" / "old").mkdir()
    with pytest.warns(UserWarning, match="files that were not taken") as warned:
        dataset = load(ten, domains={"x": "a*"})
    lines = (
        f"{ten / 'images'}: 2 not taken, since the ending is not .png or .bmp or .tif or .tiff or .jpg or .jpeg: "
        f"a2.gif, notes.txt",
        f"{ten / 'masks'}: 1 not taken, since they are folders: old",
        f"{ten / 'images'}: 10 not taken, since no domain selects them: {', '.join(f'b{i}.png' for i in range(10))}",
    )
    assert dataset.skipped == lines
    assert all(line in str(warned[0].message) for line in lines[:2])
    assert "domain" not in str(warned[0].message)  # that was asked for
    assert sorted(names(dataset)) == [f"a{i}" for i in range(10)]
    Image.fromarray(picture(0)[0]).save(ten / "images" / "a0.bmp")
    with pytest.raises(ValueError, match=r"1 problem.*\n.*a0.bmp: has the same name as a0.PNG(.*\n)+.*notes.txt"):
        load(ten, domains={"x": "a*"})


ULTRASOUND = Path(os.environ.get(VARIABLE, "")) / "usgra_seg"


@pytest.mark.skipif(
    not (VARIABLE in os.environ and ULTRASOUND.is_dir()),
    reason=f"real images: {VARIABLE} does not name a folder that holds usgra_seg/",
)
def test_real_ultrasound():
    copies = [["0003", "0025", "0050"], ["0006", "0056"], ["0007", "0061"], ["0010", "0067"], ["0012", "0073"],
              ["0013", "0080"], ["0014", "0083"], ["0015", "0087"], ["0018", "0019", "0099"],
              ["0043", "0077", "0129"], ["0055", "0058"], ["0069", "0076"], ["0079", "0081"]]  # fmt: skip
    domains = {"512": "512x512", "534": "534x512", "761": "761x632"}
    dataset = load(None, folder="usgra_seg", domains=domains, together=copies)
    # The folder's description: 82 images in three export groups.
    assert np.sum(counts(dataset), axis=0).tolist() == [24, 40, 18]
    both = everything(dataset, "truth").flatten(1)
    assert int(((both == 1).any(1) & (both == 2).any(1)).sum()) == 70
    # One of the images was exported twice with two different masks.
    with pytest.raises(ValueError, match=r"1 problem.*\n.*0077.png: duplicate, the same pixels as 0043.png"):
        load(None, folder="usgra_seg", domains=domains)
