"""What the loss of the nnU-Net trainers costs beside nnU-Net's own: forward and backward, all scales, in one process.

    python -m benchmarks.nnunet_cost                          # the table of docs/nnunet.md
    python -m benchmarks.nnunet_cost --classes 5 --shape 2 128 128 128

Both losses are what `_build_loss` of a trainer gives, for the scales of a network with as many poolings as the patch
has room for. Label maps are blobs; half of the cases lack half of the labels (nnU-Net's loss does not look at that).
Rounds of the two are interleaved and the median counts; the peak is what a step holds beyond its inputs, in memory
that is fresh from the system (labeldrop_bench/speed/memory.py), so the gradients are in it. CPU only, Linux only.
"""

import argparse
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from labeldrop_bench.integrations.nnunet.annotations import Annotations
from labeldrop_bench.integrations.nnunet.trainer import nnUNetTrainerPartialLabels
from labeldrop_bench.speed.memory import set_memory_state
from labeldrop_bench.speed.timing import time_peers

CPU = torch.device("cpu")
# batch and patch, nnU-Net's usual ones; the last needs 13 GiB
CASES = [
    (5, (12, 512, 512)), (14, (12, 512, 512)),
    (5, (2, 128, 128, 128)), (14, (2, 128, 128, 128)), (105, (2, 128, 128, 128)),
]  # fmt: skip


def build(trainer_class, classes, spatial, poolings):
    """A trainer without a data set, and its loss."""
    names = ["background", *(f"label {value}" for value in range(1, classes))]
    trainer = object.__new__(trainer_class)
    trainer.label_manager = LabelManager({name: value for value, name in enumerate(names)}, None)
    trainer.configuration_manager = SimpleNamespace(
        batch_dice=False, pool_op_kernel_sizes=[[1] * spatial, *[[2] * spatial] * poolings]
    )
    trainer.device, trainer.is_ddp, trainer.enable_deep_supervision = CPU, False, True
    trainer.annotations = Annotations(tuple(names), {"b": frozenset(names[: classes // 2 + 1])})
    trainer.dropout = None
    return trainer, trainer._build_loss()


def blobs(classes, batch, size, generator):
    """`[N, 1, *size]` int16: a coarse label map, enlarged; half of the cases lack half of the labels."""
    coarse = torch.randint(0, classes, (batch, 1, *[max(n // 16, 1) for n in size]), generator=generator).float()
    coarse[batch // 2 :][coarse[batch // 2 :] > classes // 2] = 0
    return F.interpolate(coarse, size=size, mode="nearest").to(torch.int16)


def measure(classes, shape):
    """Ratios of nnU-Net's loss to ours."""
    batch, *size = shape
    poolings = min(size).bit_length() - 3  # down to 4 pixels
    generator = torch.Generator().manual_seed(0)
    targets = [blobs(classes, batch, size, generator)]
    targets += [targets[0][(..., *[slice(None, None, 2**n)] * len(size))].contiguous() for n in range(1, poolings)]
    logits = [torch.randn(batch, classes, *each.shape[2:], generator=generator).requires_grad_() for each in targets]
    keys = ["a" if case < batch // 2 else "b" for case in range(batch)]
    ours, own_loss = build(nnUNetTrainerPartialLabels, classes, len(size), poolings)
    _, their_loss = build(nnUNetTrainer, classes, len(size), poolings)

    def clear():
        for each in logits:
            each.grad = None

    def own():
        with ours.knowing({"keys": keys}, drop=False):
            own_loss(logits, targets).backward()
        clear()

    def theirs():
        their_loss(logits, targets).backward()
        clear()

    found = time_peers({"fused": lambda: own, "nnU-Net": lambda: theirs}, CPU, budget=60)
    if found["nnU-Net"].seconds is None:
        raise RuntimeError(f"nnU-Net's loss did not run: {found['nnU-Net'].note}")
    return found["fused"], found["nnU-Net"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, help="with --shape: this alone")
    parser.add_argument("--shape", type=int, nargs="+", help="batch and patch")
    options = parser.parse_args()
    cases = [(options.classes, tuple(options.shape))] if options.classes else CASES
    set_memory_state("fresh")
    print(f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print("| classes | batch, patch | nnU-Net s | ours s | times faster | nnU-Net MiB | ours MiB | memory |")
    print("|---|---|---|---|---|---|---|---|")
    for classes, shape in cases:
        ours, theirs = measure(classes, shape)
        batch, *size = shape
        print(
            f"| {classes} | {batch}, {' x '.join(map(str, size))} | {theirs.seconds:.3g} | {ours.seconds:.3g} "
            f"| {theirs.seconds / ours.seconds:.1f} | {theirs.peak_bytes >> 20} | {ours.peak_bytes >> 20} "
            f"| 1/{theirs.peak_bytes / ours.peak_bytes:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
