"""`precision = "auto"`: no trial where it would be slow, a bounded one elsewhere, and never in silence."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from lightning_fabric import Fabric
from tiny import TOML, discs, run_config, write_suite

from labeldrop_bench import suites, train
from labeldrop_bench.cost import LiveBytes
from labeldrop_bench.evaluate import portions
from labeldrop_bench.sweep import checks, trial


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> checks.Prepared:
    text = TOML.replace('precision = "32-true"', 'precision = "auto"')
    return checks.prepare(suites.load(write_suite(tmp_path_factory.mktemp("suite"), text)))


class Clock:
    """In the place of a trial's steps: each takes as long as it is told."""

    def __init__(self, single: float, half: float) -> None:
        self.seconds, self.steps, self.limits = {False: single, True: half}, [], []

    def step(self, bf16: bool, limit: float = torch.inf) -> float:
        self.steps.append(bf16)
        self.limits.append(limit)
        time.sleep(min(self.seconds[bf16], limit))
        if self.seconds[bf16] > limit:
            raise trial._TooSlowError
        return self.seconds[bf16]


@pytest.mark.parametrize(
    ("single", "half", "chosen", "shown"),
    [(0.05, 0.04, "bf16-mixed", "0.04 s with bf16"), (0.04, 0.05, "32-true", "0.05 s with bf16"),
     (0.05, 9.0, "32-true", "more than 3 times as long with bf16")],
)  # fmt: skip
def test_the_faster_one_is_chosen_by_a_step_with_each_and_said(
    single: float, half: float, chosen: str, shown: str, prepared: checks.Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, notes = Clock(single, half), list[str]()
    monkeypatch.setattr(trial, "has_bf16", lambda device: True)
    monkeypatch.setattr(trial, "ENOUGH", 0.06)
    monkeypatch.setattr(trial, "_Trial", lambda prepared, device: clock)
    assert trial.choose_precision(prepared, "cpu", notes.append) == chosen
    assert clock.steps == [False, True]  # they took longer than enough together
    assert clock.limits[1] == pytest.approx(3 * single)
    assert notes[0] == 'training.precision = "auto": taking a step of the network with bf16 and one without'
    assert f"{chosen}; a step takes {single} s in float32, and {shown}" in notes[1]


def test_there_is_no_trial_where_there_is_no_bf16_arithmetic(
    prepared: checks.Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "has_bf16", lambda device: False)
    monkeypatch.setattr(trial, "_Trial", None)  # cannot be called
    notes: list[str] = []
    assert trial.choose_precision(prepared, "cpu", notes.append) == "32-true"
    assert notes == ['training.precision = "auto": 32-true, since there is no bf16 arithmetic on this machine\'s cpu']


def test_a_quick_step_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "ENOUGH", 0.1)
    clock = Clock(0.01, 0.02)
    assert trial._race(clock) == (0.01, 0.02)
    assert 4 <= len(clock.steps) <= 8


class Sleeps(torch.nn.Module):
    """Takes its time forward or backward."""

    def __init__(self, seconds: float, backward: bool) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.seconds, self.backward = seconds, backward

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        values = images * self.weight
        if self.backward:
            values.register_hook(lambda _: time.sleep(self.seconds))
        else:
            time.sleep(self.seconds)
        return values


@pytest.mark.parametrize("backward", [False, True])
def test_a_step_is_broken_off_at_its_limit(
    backward: bool, prepared: checks.Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = torch.nn.Sequential(*(Sleeps(0.05, backward) for _ in range(40)))
    monkeypatch.setattr("labeldrop_bench.train.make_network", lambda *_: layers)
    steps = trial._Trial(prepared, "cpu")
    began = time.perf_counter()
    with pytest.raises(trial._TooSlowError):
        steps.step(True, limit=0.1)
    assert time.perf_counter() - began < 1  # and not two seconds
    layers[3:].requires_grad_(False)
    assert steps.step(False) > 0.1  # without one it may take as long as it likes


@pytest.mark.parametrize("answer", [True, False])
def test_what_hardware_can_do_is_what_torch_says_of_it(answer: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(machine: str, **can: bool) -> None:
        monkeypatch.setattr("platform.machine", lambda: machine)
        for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
            monkeypatch.setattr(torch.cpu, name, lambda name=name: can.get(name, False))

    fake("x86_64", _is_avx512_bf16_supported=answer)
    assert trial.has_bf16("cpu") is answer
    fake("AMD64", _is_amx_tile_supported=answer)
    assert trial.has_bf16("cpu") is answer
    fake("arm64", _is_avx512_bf16_supported=not answer)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: answer, raising=False)
    assert trial.has_bf16("cpu") is answer
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: answer and not including_emulation)
    assert trial.has_bf16("cuda") is answer


def test_the_real_hardware_can_be_asked(prepared: checks.Prepared, tmp_path: Path) -> None:
    assert trial.has_bf16("cpu") in (True, False)
    real: Callable[[bool], float] = trial._Trial(prepared, "cpu").step
    assert 0 < real(False) < 60


@pytest.mark.parametrize(
    ("depth", "patches", "model"),
    [
        (None, {}, {}),
        (8, {}, {}),
        (8, {"kind": "box", "size": (8, 8, 8)}, {}),
        (7, {"kind": "slab", "size": (16, 16)}, {"name": "slab_net", "channels": [4, 4, 2]}),
        (7, {"kind": "slab", "size": (16, 16), "planes": (1,)}, {"name": "slab_net", "channels": [4, 4, 2]}),
    ],
)
def test_the_logits_of_a_prediction_are_counted(
    depth: int | None, patches: dict[str, Any], model: dict[str, Any], fabric: Fabric
) -> None:
    run, dataset = run_config({"name": "it", "loss": "label_flip"}, patches=patches, model=model), discs(depth=depth)
    predictor = train.make_learner(run, dataset, fabric).predictor
    predictor.network.eval()
    images = dataset.validation.images
    views = predictor.views(images[portions(images)[0]])
    held = [*views, views[0]] if len(views) > 1 else views
    given = cast(checks.Prepared, SimpleNamespace(first=(run, dataset)))
    assert trial.logits_at_once(given) == sum(logits.numel() for logits in held)


def test_a_step_that_is_tried_holds_what_a_prediction_does(
    prepared: checks.Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "logits_at_once", lambda _: 10**7)  # far more than the step has
    with LiveBytes() as live:
        trial.try_step(prepared, "cpu", "32-true")
    assert live.peak >= 4 * 10**7
