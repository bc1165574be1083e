from __future__ import annotations

import json
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest
import typer
from tiny import TOML, write_suite
from typer.testing import CliRunner

from labeldrop_bench import __version__, cli, data, losses, models, suites, sweep
from labeldrop_bench.commands import app

ROOT = Path(sweep.__file__).parents[1]  # where processes started here find the package that is being tested
runner = CliRunner()


def test_run_prints_and_writes_the_leaderboard_and_resumes(tmp_path: Path) -> None:
    command = ["run", write_suite(tmp_path), "--out", str(tmp_path / "out"), "--device", "cpu"]
    result = runner.invoke(app, [*command, "--set", "training.epochs=1", "--set", "seeds=[0, 1]"])
    assert result.exit_code == 0, result.output
    for name in ("results.csv", "leaderboard.md", "leaderboard.csv", "leaderboard.html", "suite.json"):
        assert (tmp_path / "out" / name).stat().st_size > 0
    assert "Ranked by" in result.stdout
    assert "[4/4] adaptive-seed1" in result.stderr
    # a row for each strategy, once its seeds are all done
    rows = [line for line in result.stderr.splitlines() if line.startswith(("full ", "adaptive "))]
    assert [row.split()[0] for row in rows] == ["full", "adaptive"]
    assert all("±" in row for row in rows)

    again = runner.invoke(app, [*command, "--set", "training.epochs=1", "--set", "seeds=[0, 1]"])
    assert again.exit_code == 0
    assert "4 of 4 runs were finished before; 0 to do" in again.stderr
    assert again.stdout == result.stdout

    for form, sign in (("terminal", "Ranked by"), ("md", "|"), ("csv", ","), ("html", "<table")):
        shown = runner.invoke(app, ["leaderboard", str(tmp_path / "out"), "--format", form])
        assert shown.exit_code == 0
        assert sign in shown.stdout


def test_out_defaults_to_runs_and_the_suites_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    seen = []
    monkeypatch.setattr(sweep, "run", lambda suite, directory, **_: seen.append(directory))
    runner.invoke(app, ["run", "smoke"])
    runner.invoke(app, ["run", "smoke", "--set", "name='../of/others'"])
    assert seen == [Path("runs/smoke"), Path("runs/..-of-others")]  # never a place outside of runs


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "quik"], "Error: there is no suite 'quik'; did you mean 'quick'"),
        (["run", "smoke", "--set", "training.epoch=1"], "Error: smoke.toml: training.epoch: there is no such key"),
        (["run", "smoke", "--set", "data.name=fantom"], "Error: smoke.toml: data.name"),
        (["run", "smoke", "--workers", "0"], "Error: --workers: must be a number from 1 up, or auto, got '0'"),
        (["run", "smoke", "--workers", "all"], "Error: --workers: must be a number from 1 up, or auto, got 'all'"),
        (["leaderboard", "nowhere"], "Error: leaderboard: nowhere is not a directory"),
    ],
)
def test_mistakes_are_one_message_and_exit_code_2(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = runner.invoke(app, arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith(message)
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_bugs_keep_their_traceback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(sweep, "run", fail)
    result = runner.invoke(app, ["run", "smoke", "--out", str(tmp_path)])
    assert isinstance(result.exception, ZeroDivisionError)


def test_ctrl_c_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep, "run", interrupt)
    result = runner.invoke(app, ["run", "smoke", "--out", str(tmp_path)])
    assert result.exit_code == 130
    assert "the same command does the others" in result.stderr


def test_lists_name_everything_that_is_registered() -> None:
    lists = {"suites": suites.names(), "losses": losses.names(), "datasets": data.names(), "models": models.names()}
    for command, names in lists.items():
        lines = runner.invoke(app, [command]).stdout.splitlines()
        assert [line.split()[0] for line in lines] == list(names)


def test_losses_are_listed_with_source_channels_and_formula() -> None:
    channels = {10: "K - 1", 11: "K", 20: "2 (K - 1)", 22: "2 K"}
    lines = runner.invoke(app, ["losses"]).stdout.splitlines()
    for (name, info), line in zip(losses.LOSSES.items(), lines, strict=True):
        expected = channels[losses.create(name, num_classes=11).out_channels]
        assert re.split(" {2,}", line) == [name, expected, info.source, info.formula]


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"labeldrop-bench {__version__}\n"
    with pytest.raises(SystemExit, match=r"^0$"):
        cli.main(["--help"])
    shown = capsys.readouterr().out
    assert all(f"\n  {word} " in shown for word in (*cli.ALONE, *cli.BENCH))
    assert cli.main([]) == 2
    assert capsys.readouterr().out == shown


def test_help_lists_every_command_as_it_describes_itself() -> None:
    group = typer.main.get_command(app)
    described = {name: (command.help or "").partition("\n")[0] for name, command in group.commands.items()}
    assert {name: f"{text}." for name, text in cli.BENCH.items()} == described
    assert not set(cli.ALONE) & set(cli.BENCH)


def test_a_command_that_there_is_not_is_named_with_the_closest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        cli.main(["docter"])
    assert "there is no command 'docter'; did you mean 'doctor'?" in capsys.readouterr().err


def test_what_follows_the_command_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also options that the front has itself."""
    heard: list[list[str]] = []
    doctor = types.SimpleNamespace(main=lambda words: heard.append(words) or 1)
    monkeypatch.setitem(sys.modules, "labeldrop_bench.doctor", doctor)
    assert cli.main(["doctor", "--help", "--version", "--", "x"]) == 1
    assert heard == [["--help", "--version", "--", "x"]]


def test_the_front_imports_no_typer() -> None:
    """Who has the losses alone has no typer, and who has it does not wait for it."""
    code = "import sys; from labeldrop_bench import cli\ntry: cli.main(['-h'])\nfinally: print('typer' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_the_command_line_imports_no_network_library() -> None:
    """Help and lists must not wait for the libraries that only training needs."""
    code = (
        "import sys; from typer.testing import CliRunner; from labeldrop_bench.commands import app\n"
        "for words in (['--help'], ['run', '-h'], ['suites']): assert not CliRunner().invoke(app, words).exit_code\n"
        "print([m for m in ('monai', 'kornia', 'lightning_fabric', 'pandas', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_smoke_runs_end_to_end(tmp_path: Path) -> None:
    result = runner.invoke(app, ["run", "smoke", "--out", str(tmp_path), "--device", "cpu"])
    assert result.exit_code == 0, result.output
    board = json.loads((tmp_path / "suite.json").read_text())
    assert len(list((tmp_path / "runs").glob("*/result.json"))) == len(board["strategies"]) == 7


def test_a_run_that_failed_is_told_after_the_leaderboard_and_exit_code_is_1(tmp_path: Path) -> None:
    out = tmp_path / "out"
    in_the_way = out / "runs" / "adaptive-seed0" / "history.csv"
    in_the_way.mkdir(parents=True)
    command = ["run", write_suite(tmp_path), "--out", str(out), "--device", "cpu"]
    result = runner.invoke(app, command)
    assert result.exit_code == 1
    assert "Ranked by" in result.stdout
    assert "failed: adaptive-seed0: IsADirectoryError" in result.stderr
    last = result.stderr[result.stderr.index("\nError: ") + 1 :]
    assert last.startswith("Error: 1 of 2 runs could not go on; the same command tries them again:\n  adaptive-seed0: ")
    assert f"traceback: {out}/runs/adaptive-seed0/failure.json" in last
    in_the_way.rmdir()
    again = runner.invoke(app, command)
    assert again.exit_code == 0
    assert "1 of 2 runs were finished before; 1 to do" in again.stderr


def test_a_suite_all_of_whose_runs_failed_is_told(tmp_path: Path) -> None:
    text = TOML.replace("batch_size = 4", 'batch_size = 4\nlearning_rate = 1e38\nschedule = "poly"')
    result = runner.invoke(app, ["run", write_suite(tmp_path, text), "--out", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert "2 of 2 runs could not go on" in result.stderr
    assert "lower training.learning_rate" in result.stderr


def test_the_options_of_a_sweep_reach_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    seen = []
    monkeypatch.setattr(sweep, "run", lambda suite, directory, **options: seen.append(options))
    for words in ([], ["--workers", "3"], ["--workers", "auto", "--ray", "auto", "--log", "tensorboard"]):
        runner.invoke(app, ["run", "smoke", *words])
    names = ("workers", "ray", "log_tensorboard")
    assert [tuple(options[name] for name in names) for options in seen] == [
        (None, None, False), (3, None, False), ("auto", "auto", True),
    ]  # fmt: skip


def test_a_procedure_that_does_not_exist_is_one_message(tmp_path: Path) -> None:
    text = TOML.replace("dropout = 0.5", 'procedure = { name = "smilr" }\ndropout = 0.5')
    result = runner.invoke(app, ["run", write_suite(tmp_path, text), "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "tiny.toml: strategies.adaptive.procedure: procedure.name: there is no procedure 'smilr'" in result.stderr
    assert "Traceback" not in result.stderr
