"""What is wrong with a directory is said with the file's name and a remedy."""

import json

import pytest

from labeldrop_bench.leaderboard import LeaderboardError, load


def test_unknown_directory(tmp_path):
    with pytest.raises(LeaderboardError, match=r"nowhere is not a directory: .*labeldrop-bench run"):
        load(tmp_path / "nowhere")


def test_missing_suite(tmp_path):
    with pytest.raises(LeaderboardError, match=r"holds no suite\.json: .*labeldrop-bench run"):
        load(tmp_path)


@pytest.mark.parametrize("content", [b"{", b'{"name": "x"}', b"\xff\xfe"])
def test_corrupt_suite(tmp_path, content):
    (tmp_path / "suite.json").write_bytes(content)
    with pytest.raises(LeaderboardError, match=r"suite\.json is not a suite .*restore the file"):
        load(tmp_path)


def test_no_results(make_directory):
    with pytest.raises(LeaderboardError, match=r"none of the 6 runs of suite 'tiny' in .* has finished"):
        load(make_directory({}))


def test_results_without_dice(make_directory):
    directory = make_directory()
    for path in directory.glob("runs/*/result.json"):
        path.write_text(path.read_text().replace('"metric": "dice"', '"metric": "iou"'))
    with pytest.raises(LeaderboardError, match="has a row with metric 'dice'"):
        load(directory)


@pytest.mark.parametrize("content", [b"", b"{", b'{"rows": []}', b"\xff\xfe"])
def test_corrupt_result(make_directory, content):
    directory = make_directory()
    path = directory / "runs" / "adaptive-seed1" / "result.json"
    path.write_bytes(content)
    with pytest.raises(LeaderboardError, match=r"adaptive-seed1/result\.json cannot be read: remove .*adaptive-seed1 "):
        load(directory)


def test_result_of_another_run(make_directory):
    directory = make_directory()
    runs = directory / "runs"
    (runs / "adaptive-seed1" / "result.json").write_text((runs / "adaptive-seed0" / "result.json").read_text())
    with pytest.raises(LeaderboardError, match=r"adaptive-seed1/result\.json must hold rows of .*'adaptive', 0\)"):
        load(directory)


def test_repeated_row(make_directory):
    directory = make_directory()
    path = directory / "runs" / "adaptive-seed1" / "result.json"
    content = json.loads(path.read_text())
    content["rows"].append(content["rows"][0])
    path.write_text(json.dumps(content))
    with pytest.raises(LeaderboardError, match=r"once, got \[\('dice', 'A', 'LV'\)\] more than once"):
        load(directory)
