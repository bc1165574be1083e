import json
import re

import numpy as np
import pytest
from data_trees import UNITY_PARTS, dice, unity_curve, unity_video, write_unity
from PIL import Image
from pydantic import ValidationError

from labeldrop_bench import data
from labeldrop_bench.data._curves import region, spline

SIZE = 64
WALL = {"epicardium": "curve-lv-epi"}


@pytest.fixture
def root(tmp_path):
    return tmp_path / "Unity"


def load(root, **options):
    info = data.get("unity")
    return info.load(info.options(root=root, **{"size": SIZE, **options}))


def by_case(dataset):
    """Case name -> (target [H, W], annotated)."""
    return {
        case: (split.target[i].numpy(), split.annotated[i].tolist())
        for split in dataset.splits().values()
        for i, case in enumerate(split.cases)
    }


def key(number, frame=0):
    return f"01-{unity_video(number)}-{frame:04d}.png"


def edit(path, change):
    """Change what a label file holds: change(entries)."""
    entries = json.loads(path.read_text())
    change(entries)
    path.write_text(json.dumps(entries))


@pytest.mark.parametrize("leading", [True, False])
@pytest.mark.parametrize("listed", [True, False])
def test_what_was_drawn_comes_back(root, leading, listed):
    drawn = write_unity(root, leading=leading, listed=listed)
    dataset = load(root, **WALL)
    assert dataset.label_space.classes == ("background", "LV", "LVM", "LA")
    found = by_case(dataset)
    assert found.keys() == drawn.keys()
    for case, (target, annotated) in found.items():
        assert annotated == [True] * 4
        for value in (1, 2, 3):
            assert dice(target == value, drawn[case] == value) > 0.97
    parts = {"train": "train", "tune": "validation", "ival": "test"}
    for part, numbers in UNITY_PARTS.items():
        assert set(dataset.splits()[parts[part]].patients) == {f"01-{unity_video(i)}" for i in numbers}


def test_without_epicardium_and_other_curves(root):
    drawn = write_unity(root)
    dataset = load(root)
    assert dataset.label_space.classes == ("background", "LV", "LA")
    for case, (target, _) in by_case(dataset).items():
        assert dice(target == 2, drawn[case] == 3) > 0.97
    assert load(root, curves={"left atrium": "curve-la-endo"}).label_space.classes == ("background", "left atrium")


def test_files_may_lack_the_leading_number_that_names_have(root):
    write_unity(root)
    for path in (root / "png-cache").rglob("*.png"):
        path.rename(path.with_name(path.name.removeprefix("01-")))
    assert len(load(root).train) == 16


def test_what_is_annotated(root):
    """Two frames of one video: a curve each that is blurred, missing or off."""
    write_unity(root)

    def change(entries):
        first, second = entries[key(2)]["labels"], entries[key(2, 1)]["labels"]
        first["curve-la-endo"] = {"type": "blurred", "x": "", "y": ""}
        first["curve-lv-epi"] = {"type": "off", "x": "", "y": ""}
        del second["curve-lv-endo"]
        second["curve-la-endo"] = [{"type": "off", "x": "", "y": ""}]
        second["curve-lv-epi"] = []
        for label in ("curve-lv-endo", "curve-la-endo", "curve-lv-epi"):
            entries[key(3)]["labels"][label] = {"type": "off", "x": "", "y": ""}
        entries[key(3, 1)]["labels"]["curve-lv-epi"] = {"type": "off", "x": "", "y": ""}
        entries[key(3, 1)]["labels"]["curve-lv-endo"] = {"type": "blurred", "x": "", "y": ""}

    edit(root / "labels-train.json", change)
    first, second, third = (key(number, frame)[:-4] for number, frame in ((2, 0), (2, 1), (3, 0)))
    found = by_case(load(root, **WALL))
    assert found[first][1] == [True, True, False, False]  # background, LV, LVM, LA
    assert set(np.unique(found[first][0])) == {0, 1}
    assert second not in found
    assert third not in found
    found = by_case(load(root, off="absent", **WALL))
    assert found[first][1] == [True, True, False, False]
    assert found[second][1] == [True, False, False, True]
    assert found[third][1] == [True, True, True, True]
    assert not found[third][0].any()
    assert found[third.replace("-0000", "-0001")][1] == [True, False, False, True]


def test_several_pieces_and_one_blurred(root):
    write_unity(root)
    square = {"type": "curve", "x": "2 2 10 10", "y": "2 10 10 2"}
    entry = {"type": "blurred", "x": "", "y": ""}

    def change(entries):
        for frame, extra in ((0, square), (1, entry)):
            labels = entries[key(2, frame)]["labels"]
            labels["curve-la-endo"] = [labels["curve-la-endo"], extra]

    edit(root / "labels-train.json", change)
    found = by_case(load(root))
    target = found[key(2)[:-4]][0]
    assert target[6, 6] == 2
    assert (target[40:] == 2).any()
    assert found[key(2, 1)[:-4]][1] == [True, True, False]


def test_spline_is_natural_and_open():
    """Through the nodes, straight where they are, no curvature at the ends, closed by a chord."""
    x, y = spline(([0.0, 5.0, 20.0], [1.0, 1.0, 1.0]))
    assert np.allclose(y, 1)
    assert (x[0], x[-1]) == (0, 20)
    assert np.diff(x).max() <= 0.5 + 1e-9
    nodes = ([10.0, 20.0, 30.0], [30.0, 10.0, 30.0])
    x, y = spline(nodes)
    assert np.hypot(x - 20, y - 10).min() < 0.3
    curvature = np.abs(np.diff(y, 2))
    assert curvature[0] < 0.1 * curvature.max()
    inside = region([nodes], (40, 40))
    assert inside[29, 11:30].all()  # just above the chord from hinge to hinge
    assert not inside[32].any()


def test_pixels_outside_of_the_sector_are_made_black(root):
    write_unity(root)
    (path,) = (root / "png-cache").rglob(key(2))
    picture = np.zeros((SIZE, SIZE), np.uint8)
    picture[8:60, 8:56] = 100
    picture[2, 40:60] = 255
    Image.fromarray(picture).save(path)
    for crop, there in ((True, False), (False, True)):
        train = load(root, crop_cone=crop).train
        image = train.images[train.cases.index(key(2)[:-4])][0]
        assert bool(image[2, 40:60].mean() > image[30, 30]) == there
    Image.fromarray(picture * 0).save(path)
    with pytest.raises(ValueError, match=r"0000.png: no ultrasound sector found"):
        load(root)
    load(root, crop_cone=False)


def test_splits_by_chance(root):
    write_unity(root)
    for part in UNITY_PARTS:
        (root / f"labels-{part}.json").unlink()
    dataset = load(root, size=16)
    assert [len(split) for split in dataset.splits().values()] == [16, 2, 2]
    assert len({load(root, size=16, seed=seed).test.patients for seed in range(4)}) > 1


def test_older_release_without_tuning_files(root):
    write_unity(root)
    (root / "labels-tune.json").unlink()
    (root / "labels-ival.json").rename(root / "labels-val.json")
    dataset = load(root, size=16, validation=0.25)
    assert [len(split) for split in dataset.splits().values()] == [12, 4, 2]
    assert set(dataset.test.patients) == {f"01-{unity_video(0)}"}


def test_every_kind_of_bad_data_is_listed(root):
    write_unity(root)
    file = {(n, f): next((root / "png-cache").rglob(key(n, f))) for n in (2, 3) for f in (0, 1)}
    file[2, 0].unlink()
    file[2, 1].write_bytes(file[2, 1].read_bytes()[:300])

    def change(entries):
        labels = [[entries[key(n, f)]["labels"] for f in (0, 1)] for n in range(2, 10)]
        labels[2][0]["curve-lv-endo"] = {"type": "curve", "x": "", "y": ""}
        labels[2][1]["curve-lv-endo"] = {"type": "curve", "x": "1 2 3", "y": "1 2"}
        labels[3][0]["curve-lv-endo"] = {"type": "curve", "x": "1 2 three", "y": "1 2 3"}
        labels[3][1]["curve-lv-endo"] = {"type": "point", "x": "1", "y": "1"}
        labels[4][0]["curve-lv-endo"] = unity_curve([90, 95, 99], [5, 2, 5])
        labels[4][1]["curve-lv-endo"] = "curve"
        labels[5][1]["curve-la-endo"] = unity_curve([9, 1e12, 30], [9, 20, 30])
        entries["readme.png"] = {"labels": {}}
        entries[key(7)] = {}
        entries[key(8).removeprefix("01-")] = entries[key(8)]

    train = root / "labels-train.json"
    edit(train, change)
    edit(root / "labels-ival.json", lambda entries: entries.update({key(9): json.loads(train.read_text())[key(9)]}))
    with pytest.raises(ValueError, match=r"unity: 13 problem\(s\)") as error:
        load(root)
    message = str(error.value)
    for text in (
        f"{file[2, 0]}: cannot be found",
        f"{file[2, 1]}: cannot be read",
        rf"labels-train.json, {key(4)}, curve-lv-endo: is empty: a curve needs three different nodes, got 0",
        rf"{key(4, 1)}, curve-lv-endo: x and y must be as many finite numbers, got 3 and 2",
        rf"{key(5)}, curve-lv-endo: x and y must be numbers with spaces between them",
        rf"{key(5, 1)}, curve-lv-endo: type must be curve, off or blurred, got point",
        rf"labels-train.json, {key(6)}: the curve of LV encloses no pixel",
        rf"{key(6, 1)}, curve-lv-endo: must be an object with type, x and y",
        rf"labels-train.json, {key(7, 1)}: the curve of LA must lie in the picture, got a node at 1000000000000.0",
        r"labels-train.json, readme.png: is no picture's name",
        rf"{key(7)}: must be an object with the key .labels.",
        rf"{key(8).removeprefix('01-')}: is listed twice",
        rf"video 01-{unity_video(9)} is in labels-train.json and labels-ival.json",
    ):
        assert re.search(text, message), (text, message)
    with pytest.warns(UserWarning, match=r"unity: 13 problem\(s\)"):
        dataset = load(root, skip_bad=True)
    assert len(dataset.skipped) == 13
    assert set(dataset.train.cases) == {key(*which)[:-4] for which in ((3, 0), (3, 1), (8, 0), (8, 1))}


def test_files_and_names_that_are_not_there(root):
    write_unity(root)
    with pytest.raises(
        ValueError, match=r"epicardium: no picture has a label 'curve-lv-epic'; did you mean 'curve-lv-epi'"
    ):
        load(root, epicardium="curve-lv-epic")
    with pytest.raises(ValueError, match=r"curves.RV: no picture has a label 'curve-rv-endo'"):
        load(root, curves={"RV": "curve-rv-endo"})
    (root / "labels-val.json").write_text("{}")
    with pytest.raises(ValueError, match=r"holds labels-ival.json and labels-val.json"):
        load(root)
    (root / "labels-val.json").unlink()
    (root / "labels-train.json").write_text("{")
    with pytest.raises(ValueError, match=r"labels-train.json cannot be read as JSON"):
        load(root)
    (root / "labels-train.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"there is: labels-tune.json, labels-ival.json"):
        load(root)
    for path in root.glob("labels-*.json"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"and are in neither"):
        load(root)


def test_labels_in_a_folder_of_their_own(root):
    write_unity(root)
    (root / "labels").mkdir()
    for path in root.glob("labels-*.json"):
        path.rename(root / "labels" / path.name)
    assert len(load(root).train) == 16


def test_options():
    options = data.get("unity").options
    for bad in ({"curves": {}}, {"curves": {"LA": "a"}, **WALL}, {"curves": {"LV": "a", "LVM": "b"}, **WALL}):
        with pytest.raises(ValidationError, match="curves"):
            options(**bad)
