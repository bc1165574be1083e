"""From cases.csv to an array, to patients, and to bootstrap samples of them."""

import numpy as np
import pytest

from labeldrop_bench import records
from labeldrop_bench.leaderboard import LeaderboardError, load
from labeldrop_bench.leaderboard.statistics.bootstrap import column_dice, draw, intervals
from labeldrop_bench.leaderboard.statistics.cases import CaseDice, case_dice, cases_of, units
from labeldrop_bench.leaderboard.table import Cell, Column
from labeldrop_bench.records import CaseRow

NAN = np.nan
A_LV, A_LA, B_LV = (Cell(*place, annotated=True, images=(1, 1)) for place in (("A", "LV"), ("A", "LA"), ("B", "LV")))
ALL = Column("overall", (A_LV, A_LA, B_LV))


def cases(rows, dice):
    """Rows: (domain, class, case, patient); Dice of one strategy or of several."""
    places, patients = tuple(row[:3] for row in rows), tuple((row[0], row[3]) for row in rows)
    return CaseDice(tuple(f"s{i}" for i in range(len(dice))), places, patients, np.array(dice))


ROWS = [
    ("A", "LA", "1", "Ann"), ("A", "LA", "2", "Ann"), ("A", "LA", "3", "Amy"),
    ("A", "LV", "1", "Ann"), ("A", "LV", "2", "Ann"), ("A", "LV", "3", "Amy"),
    ("B", "LV", "1", "Ann"), ("B", "LV", "2", "Bea"),
]  # fmt: skip


def test_patients_are_means_over_classes_then_cases():
    found = units(cases(ROWS, [[0.1, 0.3, 0.4, 0.5, 0.7, 0.8, 0.2, 0.9]]))
    assert found.patients == (("A", "Amy"), ("A", "Ann"), ("B", "Ann"), ("B", "Bea"))  # two Anns
    assert found.dice[0] == pytest.approx([0.6, (0.3 + 0.5) / 2, 0.2, 0.9])


def test_each_case_of_a_patient_weighs_the_same_however_many_classes_it_has():
    rows = [("A", "LA", "1", "Ann"), ("A", "LV", "1", "Ann"), ("A", "LV", "2", "Ann")]
    assert units(cases(rows, [[0.2, 0.4, 0.9]])).dice[0] == pytest.approx([(0.3 + 0.9) / 2])


def test_what_is_undefined_for_one_counts_for_none():
    whole = cases(ROWS, [[0.5] * 8, [NAN, *[0.6] * 7], [*[0.7] * 7, NAN]])
    common = whole.of(["s0", "s1"])
    assert common.places == whole.places[1:]
    assert not np.isnan(common.dice).any()
    assert units(common).dice.shape == (2, 4)  # Ann on A still has a case and a class
    assert units(whole.of(["s1", "s2"])).patients == (("A", "Amy"), ("A", "Ann"), ("B", "Ann"))  # Bea for neither
    assert whole.of(["s2"]).places == whole.places[:-1]


def test_within_a_column():
    found = cases(ROWS, [range(8)]).within(Column("x", (A_LV, B_LV)))
    assert found.dice.tolist() == [[3, 4, 5, 6, 7]]
    assert {place[1] for place in found.places} == {"LV"}


def write_cases(directory, run, values):
    """(domain, class, case) -> Dice; the patient is the case's first letter."""
    rows = [
        CaseRow.model_validate(
            {"domain": d, "class": c, "case": case, "patient": case[0], "dice": value}
            | dict.fromkeys(("hd95", "nsd", "ece", "brier", "size"))
        )
        for (d, c, case), value in values.items()
    ]
    records.write_text(directory / "runs" / run / "cases.csv", records.cases_csv(rows))


@pytest.fixture
def directory(make_directory):
    """Adaptive and full, in both of whose seeds two cases were tested."""
    directory = make_directory()
    for run, dice in {"adaptive-seed0": 0.2, "adaptive-seed1": 0.4, "full-seed0": 0.8, "full-seed1": 0.9}.items():
        write_cases(directory, run, {("A", "LV", "x1"): dice, ("A", "LV", "y1"): dice / 2})
    return directory


def read(directory):
    (board,) = load(directory).boards
    return case_dice(directory, [board.entry("adaptive"), board.entry("full")])


def test_seeds_are_averaged(directory):
    found = read(directory)
    assert found.strategies == ("adaptive", "full")
    assert found.places == (("A", "LV", "x1"), ("A", "LV", "y1"))
    assert found.patients == (("A", "x"), ("A", "y"))
    assert found.dice == pytest.approx(np.array([[0.3, 0.15], [0.85, 0.425]]))


@pytest.mark.parametrize("values", [{("A", "LV", "x1"): 0.4, ("A", "LV", "y1"): None}, {("A", "LV", "x1"): 0.4}])
def test_a_seed_without_a_value_leaves_none(directory, values):
    write_cases(directory, "adaptive-seed1", values)
    assert read(directory).dice == pytest.approx(np.array([[0.3, NAN], [0.85, 0.425]]), nan_ok=True)


def test_with_a_split_for_each_seed_a_case_has_the_seeds_that_were_tested_on_it(directory):
    for name, dice in {"adaptive": 0.4, "full": 0.9}.items():
        write_cases(directory, f"{name}-seed1", {("A", "LV", "y1"): dice, ("A", "LV", "z1"): dice})
    assert read(directory).dice == pytest.approx(np.array([[0.2, 0.25, 0.4], [0.8, 0.65, 0.9]]))


def test_strategies_with_missing_seeds_are_left_out(directory, dice):
    (directory / "runs" / "adaptive-seed1" / "result.json").unlink()
    loaded = load(directory)
    assert cases_of(loaded, loaded.boards[0]).strategies == ("marginal + dropout", "full")


def test_runs_that_disagree_about_a_patient_are_named(directory):
    path = directory / "runs" / "full-seed1" / "cases.csv"
    path.write_text(path.read_text().replace("x1,x,", "x1,z,"))
    with pytest.raises(LeaderboardError, match=r"full-seed1/cases\.csv must give case 'x1' of 'A' to patient 'x'"):
        read(directory)


def test_samples_are_drawn_within_domains():
    patients = [("A", "Amy"), ("A", "Ann"), ("A", "Abe"), ("B", "Bea"), ("B", "Bob")]
    drawn = draw(patients, 500, 0)
    assert drawn.shape == (500, 5)
    assert (drawn[:, :3].sum(1) == 3).all()
    assert (drawn[:, 3:].sum(1) == 2).all()
    assert (drawn == 0).any(0).all()  # nobody is always there
    assert (draw(patients, 500, 0) == drawn).all()
    assert not (draw(patients, 500, 1) == drawn).all()


def test_dice_of_a_sample_is_that_of_the_sample_written_out():
    whole = cases(ROWS, [[0.1, 0.3, 0.4, 0.5, 0.7, 0.8, 0.2, 0.9], [0.2, NAN, 0.6, 0.1, 0.3, 0.9, 0.5, 0.4]])
    patients = sorted(set(whole.patients))
    drawn = np.array([[1, 1, 1, 1], [0, 2, 1, 1], [2, 0, 0, 2]])
    found = column_dice(whole, ALL, patients, drawn)
    for sample, weights in enumerate(drawn):
        times = dict(zip(patients, weights, strict=True))
        for strategy, dice in enumerate(whole.dice):
            means = []
            for cell in ALL.cells:
                of_cell = [
                    value
                    for place, patient, value in zip(whole.places, whole.patients, dice, strict=True)
                    for _ in range(times[patient])
                    if place[:2] == (cell.domain, cell.class_name) and not np.isnan(value)
                ]
                means.append(np.mean(of_cell))
            assert found[strategy, sample] == pytest.approx(np.mean(means))


def test_patients_and_not_cases_are_resampled():
    rng = np.random.default_rng(0)
    one = [("A", "LV", str(i), str(i)) for i in range(12)]
    dice = rng.random(12)
    column = Column("overall", (A_LV,))
    single = cases(one, [dice])
    # each case five times: what is known of these twelve patients is no more than before
    copies = [(*place[:2], f"{place[2]}-{copy}", place[3]) for copy in range(5) for place in one]
    several = cases(copies, [np.tile(dice, 5)])
    expected, found = (intervals(c, [column], bootstraps=400, seed=3)["s0"]["overall"] for c in (single, several))
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert expected.high - expected.low > 0.1
    # and independent cases would have told more
    apart = [(*row[:3], row[2]) for row in copies]
    narrow = intervals(cases(apart, [np.tile(dice, 5)]), [column], bootstraps=400, seed=3)["s0"]["overall"]
    assert narrow.high - narrow.low < 0.7 * (expected.high - expected.low)


def test_interval_of_a_mean_is_that_of_theory():
    # of n = 400 independent values with a deviation of 0.1 the mean is known to 1.96 * 0.1 / 20
    values = np.random.default_rng(1).normal(0.6, 0.1, 400)
    rows = [("A", "LV", f"{i:03}", f"{i:03}") for i in range(400)]
    found = intervals(cases(rows, [values]), [Column("x", (A_LV,))], bootstraps=2000, seed=0)["s0"]["x"]
    half = 1.96 * values.std() / 20
    # the ends of 2000 samples scatter by about 5 % of the width
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.2 * half)


def test_column_without_a_value_has_no_interval():
    whole = cases(ROWS, [[0.5] * 8, [NAN] * 3 + [0.6] * 5])
    found = intervals(whole, [ALL, Column("A/LV", (A_LV,))], bootstraps=10, seed=0)
    assert list(found["s0"]) == ["overall", "A/LV"]
    assert list(found["s1"]) == ["A/LV"]
