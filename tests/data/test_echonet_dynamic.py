import re

import numpy as np
import pytest
from data_trees import dice, save_avi, write_echonet

from labeldrop_bench import data
from labeldrop_bench.data.echonet_dynamic import read_frame, tracing_mask
from labeldrop_bench.data.prepare import DataProblem

SIZE = 64


@pytest.fixture
def root(tmp_path):
    return tmp_path / "EchoNet-Dynamic"


def load(root, **options):
    info = data.get("echonet_dynamic")
    return info.load(info.options(root=root, **{"size": SIZE, **options}))


def by_case(dataset):
    """Case name -> (image [H, W], target [H, W])."""
    return {
        case: (split.images[:][i, 0].numpy(), split.target[i].numpy())
        for split in dataset.splits().values()
        for i, case in enumerate(split.cases)
    }


def video(number):
    return f"0X{number:016X}"


@pytest.mark.parametrize("ending", ["", ".avi"])
def test_what_was_drawn_comes_back(root, ending):
    # Corners are rounded to whole pixels: that costs a Dice of 0.02 at 112 pixels, and more at fewer.
    drawn = write_echonet(root, size=112, ending=ending)
    dataset = load(root, size=112)
    found = by_case(dataset)
    assert found.keys() == drawn.keys()
    assert dataset.label_space.classes == ("background", "LV")
    for case, (image, target) in found.items():
        assert dice(target == 1, drawn[case] == 1) > 0.97
        inside = drawn[case] == 1  # the frame that was traced, and no blank one
        assert image[inside].mean() - image[~inside].mean() > 1
    expected = {"train": range(2, 10), "validation": [1], "test": [0]}
    for name, split in dataset.splits().items():
        assert set(split.patients) == {video(i) for i in expected[name]}


def test_the_rule_of_the_authors():
    """By hand: the first line does not count; corners, rounded, (2, 1), (2, 5), (3, 5), (6, 1); border inside."""
    lines = [[0, 0, 9, 9], [2.4, 0.6, 6.4, 0.6], [1.6, 5.4, 2.6, 5.4]]
    expected = np.zeros((8, 10), np.uint8)
    for row, last in ((1, 6), (2, 5), (3, 4), (4, 3), (5, 3)):  # the right border is x = 6 - 3 / 4 (y - 1)
        expected[row, 2 : last + 1] = 1
    np.testing.assert_array_equal(tracing_mask(lines, (8, 10)), expected)


def test_grey_is_luma(tmp_path):
    frames = [np.full((64, 64), 20 * i, np.uint8) for i in range(4)]
    save_avi(tmp_path / "a.avi", frames)
    for i, frame in enumerate(frames):
        # JPEG at this quality and the way through YUV: two levels on an even picture
        np.testing.assert_allclose(read_frame(tmp_path / "a.avi", i).astype(int), frame, atol=2)
    with pytest.raises(DataProblem, match="frame 4 was traced, but the video ends after 4 frames"):
        read_frame(tmp_path / "a.avi", 4)


def test_size_and_cone(root):
    write_echonet(root)
    assert load(root, size=(32, 48)).train.images.shape[1:] == (1, 32, 48)
    assert data.get("echonet_dynamic").options().size == (112, 112)
    stem = video(2)
    square = np.zeros((SIZE, SIZE), np.uint8)
    square[16:60, 8:56] = 100
    square[2, 40:60] = 255  # a line of text
    save_avi(root / "Videos" / f"{stem}.avi", [square] * 8)
    for crop, there in ((False, True), (True, False)):
        image = by_case(load(root, crop_cone=crop))[f"{stem}-ED"][0]
        assert (image[2, 40:60].mean() > image[30, 30]) == there
    save_avi(root / "Videos" / f"{stem}.avi", [square * 0] * 8)
    with pytest.raises(ValueError, match=f"{stem}.avi: no ultrasound sector found"):
        load(root, crop_cone=True)


def edit(path, change):
    """Change the lines of a file."""
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")


def test_every_kind_of_bad_data_is_listed(root):
    write_echonet(root)
    videos, tracings, listed = root / "Videos", root / "VolumeTracings.csv", root / "FileList.csv"
    (videos / f"{video(2)}.avi").unlink()
    cut = videos / f"{video(3)}.avi"
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    (videos / f"{video(4)}.avi").write_bytes(b"nonsense")
    edit(tracings, lambda lines: [re.sub(f"^({video(5)}.avi.*),5$", r"\1,50", line) for line in lines])
    edit(tracings, lambda lines: [re.sub(f"^({video(6)}.avi).*,2$", r"\1,70,70,70,70,2", line) for line in lines])
    edit(tracings, lambda lines: [*lines, f"{video(7)}.avi,1,nan,3,4,2", f"{video(7)}.avi,1,x,3,4,2"])
    edit(listed, lambda lines: [*lines, lines[9], lines[10].replace("TRAIN", "EXTRA").replace("0X", "1X")])
    with pytest.raises(ValueError, match=r"echonet_dynamic: \d+ problem\(s\)") as error:
        load(root)
    message = str(error.value)
    last = len(tracings.read_text().splitlines())
    for text in (
        rf"{video(2)}.avi: cannot be found",
        rf"{video(3)}.avi: (frame 5 was traced, but the video ends after \d|cannot be read)",
        rf"{video(4)}.avi: cannot be read",
        rf"{video(5)}.avi: frame 50 was traced, but the video ends after 8 frames",
        rf"VolumeTracings.csv: the tracing of {video(6)}.avi, frame 2 is empty: its 21 line\(s\)",
        rf"VolumeTracings.csv, line {last - 1}: X1, Y1, X2, Y2 must be numbers and Frame a whole number, got \['1'",
        rf"VolumeTracings.csv, line {last}: .*got \['1', 'x', '3', '4', '2'\]",
        rf"FileList.csv, line 12: video {video(8)} is listed twice",
        r"FileList.csv, line 13: Split must be one of TRAIN, VAL, TEST, got 'EXTRA'",
    ):
        assert re.search(text, message), (text, message)
    with pytest.warns(UserWarning, match="problem"):
        dataset = load(root, skip_bad=True)
    assert {case.rpartition("-")[0] for case in by_case(dataset)} >= {video(i) for i in (0, 1, 9)}
    assert f"{video(6)}-ED" in by_case(dataset)
    assert f"{video(6)}-ES" not in by_case(dataset)
    assert not {video(i) for i in (2, 4, 7, 8)} & set(dataset.train.patients)


def test_videos_without_two_tracings_are_listed(root):
    write_echonet(root)
    edit(root / "VolumeTracings.csv", lambda lines: [x for x in lines if video(3) not in x])
    edit(root / "VolumeTracings.csv", lambda lines: [x for x in lines if video(4) not in x or x.endswith(",5")])
    with pytest.warns(UserWarning, match="2 not taken, since fewer than two of their frames are traced"):
        dataset = load(root)
    assert dataset.skipped[0].endswith(f": {video(3)}, {video(4)}")
    assert set(dataset.train.patients) == {video(i) for i in (2, 5, 6, 7, 8, 9)}


def test_lists_that_are_not_there(root):
    write_echonet(root, patients=1)
    edit(root / "VolumeTracings.csv", lambda lines: [lines[0].replace("Y2", "Z2"), *lines[1:]])
    with pytest.raises(ValueError, match=r"VolumeTracings.csv must have the columns Y2"):
        load(root)
    (root / "FileList.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"not there: .*FileList.csv"):
        load(root)


def changed_frame(root, change):
    """Change the lines of frame 2 (end-systole) of video 3, and leave them before those of its other frame."""
    path = root / "VolumeTracings.csv"
    head, *lines = path.read_text().splitlines()
    mine = [line for line in lines if video(3) in line and line.endswith(",2")]
    place = lines.index(mine[0])
    rest = [line for line in lines if line not in mine]
    path.write_text("\n".join([head, *rest[:place], *change(mine), *rest[place:]]) + "\n")


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: lines * 2,
        lambda lines: [line for line in lines for _ in range(2)],
        lambda lines: [*lines, *reversed(lines)],
        lambda lines: sorted(lines, key=lambda line: float(line.split(",")[1])),
        lambda lines: [*lines[1:], lines[0]],
        lambda lines: [lines[0], *lines[10:], *lines[1:10]],
        lambda lines: lines[1:],
    ],
    ids=["twice", "each line twice", "there and back", "sorted", "axis last", "chords moved", "no axis"],
)
def test_a_tracing_in_another_order_is_a_problem_of_its_frame(root, change):
    write_echonet(root)
    changed_frame(root, change)
    with pytest.raises(
        ValueError, match=rf"1 problem.*\n.*VolumeTracings.csv: the tracing of {video(3)}.avi, frame 2 is"
    ):
        load(root)
    with pytest.warns(UserWarning, match="1 problem"):
        kept = by_case(load(root, skip_bad=True))
    assert f"{video(3)}-ES" not in kept
    assert len(kept) == 19


def test_a_tracing_may_run_either_way_and_frames_may_be_floats(root):
    drawn = write_echonet(root, size=112)
    changed_frame(root, lambda lines: [lines[0], *reversed(lines[1:])])
    edit(root / "VolumeTracings.csv", lambda lines: [lines[0], *(f"{line}.0" for line in lines[1:])])
    found = by_case(load(root, size=112))
    assert all(dice(target == 1, drawn[case] == 1) > 0.97 for case, (_, target) in found.items())
    edit(root / "VolumeTracings.csv", lambda lines: [*lines[:-1], f"{lines[-1][:-2]}.5"])
    with pytest.raises(ValueError, match="Frame a whole number"):
        load(root)
