"""Every suite of the package, small enough that a test can run it to its leaderboard.

`RECIPES` says how each one is shrunk, and what its data are made of where they are real: made-up ones in their owners'
layouts. What is left of a suite still has each of its losses, options of losses, procedures, networks and figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from data_trees import write_camus, write_echonet, write_fetal_atlas, write_ultrasound, write_unity
from nnunet_tree import write_nnunet

from labeldrop_bench import suites
from labeldrop_bench.records import (
    MILLIMETRES,
    PIXELS,
    SOME_PIXELS,
    ConditionConfig,
    DistanceUnit,
    StrategyConfig,
    SuiteConfig,
)

T = TypeVar("T")
ALL = (
    "seeds=[0]", "workers=1", "training.epochs=1", "training.grid={}", "training.batch_size=4", "training.threads=1",
    "training.precision=32-true", "training.validate_every=1", "model.channels=[4, 8]", "scoring.examples=1",
)  # fmt: skip
PHANTOM = ("data.size=32", "data.train=4", "data.validation=2", "data.test=3")
HETERO = (
    "training.epochs=2", "model.channels=[4, 8, 4]", "patches.size=[16, 16]", "patches.per_image=1",
    *(f'strategies."{name}".procedure.warm_up=1' for name in ("predictive variance", "label flip")),
    'strategies."label flip + rejection".procedure={name="heteroscedastic", warm_up=1, reject_from=2}',
)  # fmt: skip
THREE = "model.channels=[4, 8, 8]"  # levels, which DynUNet needs
SMILER = tuple(f'strategies."SMILEr, {ranking}".procedure.rounds=1' for ranking in ("score", "deviation"))


def echo(*sources: str) -> tuple[str, ...]:
    """Sizes of combined sources."""
    return tuple(f"data.sources.{source}.size=32" for source in sources)


@dataclass(frozen=True)
class Recipe:
    """How a suite is made small.

    Attributes:
        overrides: words for `--set`, besides `ALL`.
        write: makes the data, in folders of the one that LABELDROP_DATA names.
        distances: the unit of HD95; pictures and videos have no spacing.
    """

    overrides: tuple[str, ...]
    write: tuple[Callable[[Path], object], ...] = ()
    distances: DistanceUnit = PIXELS


def camus(root: Path) -> None:
    write_camus(root / "CAMUS_public", size=48)


def unity(root: Path) -> None:
    write_unity(root / "Unity", size=48)


def echonet(root: Path) -> None:
    write_echonet(root / "EchoNet-Dynamic", size=48)


def ultrasound(root: Path) -> None:
    write_ultrasound(root / "usgra_seg", suites.load("ultrasound").config.data.options["together"])


def abdomen(root: Path) -> None:
    write_volumes(root / "Dataset001_Abdomen", {"background": 0, "liver": 1, "pancreas": 2, "stomach": 3})


def brain(root: Path) -> None:
    write_volumes(root / "Dataset002_Brain", {"background": 0, "left": 1, "right": 2})


def write_volumes(folder: Path, labels: dict[str, int], cases: int = 10, size: int = 16) -> None:
    """Volumes in nnU-Net's format, each with a cube of every label."""
    noise = np.random.default_rng(0)
    made = {}
    for number in range(cases):
        label_map = np.zeros((size,) * 3, np.uint8)
        for value in range(1, len(labels)):
            first = 4 * (value - 1) + number % 2
            label_map[first : first + 4, 4:10, 3:9] = value
        image = (50 * label_map + noise.normal(100, 5, label_map.shape)).astype(np.float32)
        made[f"case{number}"] = (image[None], label_map)
    write_nnunet(folder, made, labels)


RECIPES = {
    "all": Recipe(PHANTOM),
    "camus-echonet": Recipe(echo("camus", "echonet_dynamic"), (camus, echonet), SOME_PIXELS),
    "fetal": Recipe(
        ("data.size=[16, 16, 16]", "patches.size=[8, 8, 8]", "patches.per_image=2"),
        (lambda root: write_fetal_atlas(root / "fetal_brain_atlas"),),
        MILLIMETRES,
    ),
    "hetero": Recipe(("data.root=.", "data.size=[16, 16, 16]", *HETERO), (brain,), MILLIMETRES),
    "hetero-phantom": Recipe(
        ("data.size=[20, 24, 20]", "data.train=2", "data.validation=1", "data.test=3", *HETERO)
    ),
    "ld-exp1": Recipe(echo("camus", "unity", "echonet_dynamic"), (camus, unity, echonet), SOME_PIXELS),
    "ld-exp1-phantom": Recipe((*PHANTOM, "data.train=6")),
    "ld-exp2": Recipe(echo("camus", "unity", "echonet_dynamic"), (camus, unity, echonet), SOME_PIXELS),
    "ld-exp2-phantom": Recipe(PHANTOM),
    "ld-exp3": Recipe(("data.size=32",), (camus,), MILLIMETRES),
    "ld-exp3-phantom": Recipe(PHANTOM),
    "ld-exp4": Recipe(echo("camus", "unity"), (camus, unity), SOME_PIXELS),
    "ld-exp4-phantom": Recipe(PHANTOM),
    "melba": Recipe((*echo("camus", "unity"), THREE), (camus, unity), SOME_PIXELS),
    "melba-phantom": Recipe((*PHANTOM, THREE)),
    "quick": Recipe(PHANTOM),
    "smile": Recipe(
        ("data.root=.", "data.size=[16, 16, 16]", "patches.size=[8, 8, 8]", "patches.per_image=1", *SMILER),
        (abdomen,),
        MILLIMETRES,
    ),
    "smile-phantom": Recipe((*PHANTOM, *SMILER)),
    "smoke": Recipe(PHANTOM),
    "ultrasound": Recipe(("data.size=32",), (ultrasound,)),
}  # fmt: skip


def cut(config: SuiteConfig) -> SuiteConfig:
    """A suite with as few strategies and conditions as have each of its losses, procedures, networks and keys."""
    kept = [
        *firsts(config.strategies, key=lambda s: (s.loss, s.loss_options, kind(s), s.full_labels, s.augmented)),
        *firsts((s for s in config.strategies if s.dropout), key=lambda _: None),
    ]
    names = {s.name for s in kept} | {config.standard}
    conditions = [
        *firsts(config.conditions, key=network),
        *firsts(config.conditions, key=lambda c: sorted(c.data)),
        *config.conditions[-1:],
    ]
    return config.model_copy(
        update={
            "strategies": tuple(s for s in config.strategies if s.name in names),
            "conditions": tuple(small(c) for c in config.conditions if c in conditions),
        }
    )


def firsts(things: Iterable[T], key: Callable[[T], object]) -> list[T]:
    """The first thing of each key."""
    first: dict[str, T] = {}
    for thing in things:
        first.setdefault(repr(key(thing)), thing)
    return list(first.values())


def kind(strategy: StrategyConfig) -> list[str]:
    """What a strategy's procedure does, whatever its numbers."""
    procedure = strategy.procedure or {}
    return [f"{key}={value}" if isinstance(value, str) else key for key, value in sorted(procedure.items())]


def network(condition: ConditionConfig) -> str:
    return condition.model.get("name", "")


def small(condition: ConditionConfig) -> ConditionConfig:
    """With the widths and epochs of all."""
    model = {key: value for key, value in condition.model.items() if key != "channels"}
    training = {key: value for key, value in condition.training.items() if key != "epochs"}
    return condition.model_copy(update={"model": model, "training": training})
