from __future__ import annotations

import pytest
import torch
from lightning_fabric import Fabric
from tiny import discs, run_config

from labeldrop_bench import train
from labeldrop_bench.cost import LiveBytes, peak_bytes, step_cost

CPU = torch.device("cpu")


@pytest.mark.parametrize("backend", ["fused", "reference"])
def test_the_gradient_is_counted_once(fabric: Fabric, backend: str) -> None:
    """The fused loss holds the gradient and next to nothing else; the plain one holds several such tensors."""
    config = run_config({"name": "it", "loss": "marginal_ce", "loss_options": {"backend": backend}})
    dataset = discs()
    cost = step_cost(train.make_learner(config, dataset, fabric), config, dataset)
    n = config.training.batch_size
    assert cost.shape == (n, 3, 16, 16)
    gradient = 4 * n * 3 * 16 * 16
    if backend == "fused":
        assert gradient <= cost.peak_bytes < 1.2 * gradient
    else:
        assert cost.peak_bytes > 2 * gradient
    assert 0 < cost.seconds < 1
    assert cost.rounds > 0


def test_what_lives_together_is_added_up() -> None:
    def step() -> None:
        a = torch.ones(1000)  # 4000 bytes
        b = a * 2  # 8000
        del a
        b.view(10, 100)[0].add_(1)  # views and changes in place hold nothing
        c = torch.cat([b, b])  # 4000 + 8000
        assert len(c)

    assert peak_bytes(step, CPU) == 12000


def test_what_was_there_before_is_not_counted() -> None:
    given = torch.ones(1000)
    with LiveBytes() as live:
        same = given.view(10, 100)
        same.add_(1)
    assert live.peak == 0


def test_a_step_leaves_no_trace(fabric: Fabric) -> None:
    """Weights and the next random numbers matter to nobody after a run, but the samples are shared by all runs."""
    config, dataset = run_config(), discs()
    before = dataset.train.target[:], dataset.train.annotated.clone(), dataset.train.images[:]
    learner = train.make_learner(config, dataset, fabric)
    weights = {name: weight.clone() for name, weight in learner.network.state_dict().items()}
    step_cost(learner, config, dataset)
    after = dataset.train.target[:], dataset.train.annotated, dataset.train.images[:]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(torch.equal(weights[name], weight) for name, weight in learner.network.state_dict().items())
