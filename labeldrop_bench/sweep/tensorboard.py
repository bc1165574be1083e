"""Event files for TensorBoard beside every history.csv: a folder `tensorboard` in the directory of each fit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from labeldrop_bench.checkpoints import Epoch

if TYPE_CHECKING:  # imports tensorboard, which only some have
    from torch.utils.tensorboard import SummaryWriter


class TensorBoard:
    """A callback of Lightning Fabric, which `train.fit` and `jobs.do` call on the first process.

    A fit that goes on after a break does so in the same folder. Epochs that were written before the break and are done
    again are taken back: TensorBoard forgets every step from `purge_step` on.
    """

    def __init__(self) -> None:
        self._writer: SummaryWriter | None = None
        self._fit: Path | None = None

    def on_epoch_end(self, directory: Path, epoch: Epoch) -> None:
        """Write what history.csv has.

        Args:
            directory: of the fit.
            epoch: the one that has ended.
        """
        from torch.utils.tensorboard import SummaryWriter

        if self._writer is None or directory != self._fit:
            self.on_run_end()
            self._fit = directory
            self._writer = SummaryWriter(str(directory / "tensorboard"), purge_step=epoch.epoch)
        scalars = {
            "loss": epoch.loss,
            "validation_dice": epoch.validation_dice,
            "truth_dice": epoch.truth_dice,
            "learning_rate": epoch.lr,
            "seconds": epoch.seconds,
        }
        for name, value in scalars.items():
            if value is not None:
                self._writer.add_scalar(name, value, epoch.epoch)
        self._writer.flush()

    def on_run_end(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
        self._writer = None
