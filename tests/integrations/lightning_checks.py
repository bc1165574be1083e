"""Checks of examples/lightning/train.py, whose folder is on the path: `python lightning_checks.py NAME`."""

import copy
import pickle
import sys

import lightning as L
import torch
import torch.distributed as dist
import train
from torch import nn
from torch.utils.data import DataLoader, Sampler

import labeldrop_bench as lb


def trainer(epochs=1, **options):
    plain = {"accelerator": "cpu", "devices": 1, "logger": False, "enable_checkpointing": False}
    quiet = {"enable_progress_bar": False, "enable_model_summary": False}
    return L.Trainer(max_epochs=epochs, **{**plain, **quiet, **options})


def model(**options):
    torch.manual_seed(0)
    return train.PartialSegmentation(**{"width": 4, **options})


def same(one, other):
    state = other.state_dict()
    return all(torch.equal(value, state[key]) for key, value in one.state_dict().items())


class InOrder(train.Pictures):
    """Without shuffling, which Lightning does not restore."""

    def __init__(self, size=8):
        super().__init__()
        self.size = size

    def train_dataloader(self):
        return DataLoader(self.train, batch_size=self.size, sampler=Mine(self.train))


class Mine(Sampler):
    """Of each batch of eight, every process's part: the whole with one process."""

    def __init__(self, data):
        self.data = data

    def __iter__(self):
        world, rank = (dist.get_world_size(), dist.get_rank()) if dist.is_initialized() else (1, 0)
        return iter(range(rank, len(self.data), world))

    def __len__(self):
        return len(self.data) // (dist.get_world_size() if dist.is_initialized() else 1)


def precisions():
    """Every way of Lightning's that a CPU has; the loss is float32, or float64 where everything is."""
    for precision, logits in (
        ("32-true", torch.float32),
        ("64-true", torch.float64),
        ("bf16-mixed", torch.bfloat16),
        ("bf16-true", torch.bfloat16),
    ):
        net, seen = model(), []
        net.loss.register_forward_hook(lambda _, arguments, value, to=seen: to.append((arguments[0].dtype, value)))
        start = copy.deepcopy(net)
        trainer(precision=precision, limit_train_batches=2).fit(net, datamodule=train.Pictures())
        expected = torch.float64 if precision == "64-true" else torch.float32
        assert [(dtype, value.dtype) for dtype, value in seen] == [(logits, expected)] * 2, (precision, seen)
        assert all(value.isfinite() for _, value in seen)
        assert not same(start.to(next(net.parameters()).dtype), net)


def resume():
    """A run that is interrupted ends where one ends that was not, label dropout included."""
    whole, first, second = model(dropout=0.5), model(dropout=0.5), model(dropout=0.5)
    trainer(4).fit(whole, datamodule=InOrder())
    half = trainer(2)
    half.fit(first, datamodule=InOrder())
    half.save_checkpoint("half.ckpt")
    torch.manual_seed(99)
    trainer(4).fit(second, datamodule=InOrder(), ckpt_path="half.ckpt")
    assert not same(first, second)
    assert same(whole, second)


def checkpoints():
    """Hyper-parameters come back, and nothing of losses or dropout is in the weights, for every loss there is."""
    for name in lb.losses.names():
        net = model(loss=name, dropout=0.25, width=2)
        run = trainer(limit_train_batches=1)
        run.fit(net, datamodule=train.Pictures())
        run.save_checkpoint("one.ckpt")
        held = torch.load("one.ckpt", weights_only=True)
        assert {key.split(".")[0] for key in held["state_dict"]} == {"network"}, name
        assert held["hyper_parameters"] == {"loss": name, "dropout": 0.25, "lr": 1e-2, "width": 2}
        again = train.PartialSegmentation.load_from_checkpoint("one.ckpt", weights_only=True)
        twins = [again, copy.deepcopy(net), pickle.loads(pickle.dumps(net))]  # noqa: S301 - ours
        image = train.pictures(2, "B", 5)[0]
        for twin in twins:
            assert same(net, twin)
            assert twin.dropout.p == 0.25
            assert torch.equal(
                twin.eval().loss.predict(twin.network(image)), net.eval().loss.predict(net.network(image))
            )


def processes():
    """Two processes with four pictures each learn what one learns from eight; each hides labels of its own."""
    one = model(loss="marginal_ce", dropout=0.0)
    for name, layer in list(one.network.named_children()):
        if isinstance(layer, nn.BatchNorm2d):  # its statistics would be those of half a batch
            setattr(one.network, name, nn.Identity())
    two = copy.deepcopy(one)
    trainer(limit_train_batches=4).fit(one, datamodule=InOrder(8))
    options = {"devices": 2, "strategy": "ddp", "use_distributed_sampler": False}
    trainer(limit_train_batches=4, **options).fit(two, datamodule=InOrder(4))
    for key, value in one.state_dict().items():
        torch.testing.assert_close(two.state_dict()[key], value, rtol=1e-4, atol=1e-6)

    seen, net = [], model(dropout=0.5)
    # of everything: what was annotated in their own pictures would differ anyway
    net.dropout.register_forward_pre_hook(lambda _, arguments: (torch.ones_like(arguments[0]), *arguments[1:]))
    net.dropout.register_forward_hook(lambda module, arguments, shown: seen.append(shown.int()))
    run = trainer(limit_train_batches=3, devices=2, strategy="ddp")
    run.fit(net, datamodule=train.Pictures())
    shown, weights = run.strategy.all_gather(torch.cat(seen)), run.strategy.all_gather(net.network[0].weight)
    assert len(shown) == 2
    assert not torch.equal(*shown)
    assert torch.equal(*weights)


if __name__ == "__main__":
    {each.__name__: each for each in (precisions, resume, checkpoints, processes)}[sys.argv[1]]()
