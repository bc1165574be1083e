# train.py
import argparse

import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import labeldrop_bench as lb

CLASSES = ["background", "disc", "square"]


def pictures(count, source, seed):
    """Noisy pictures `[count, 1, 48, 48]` of a disc and a square, and their label maps `[count, 48, 48]`."""
    rng = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(48), torch.arange(48), indexing="ij")
    labels = torch.zeros(count, 48, 48, dtype=torch.uint8)
    for label in labels:
        row, column = 8 + 12 * torch.rand(1, generator=rng), 8 + 32 * torch.rand(1, generator=rng)
        label[(y - row) ** 2 + (x - column) ** 2 < 36] = 1
        top, left = torch.randint(26, 36, (2,), generator=rng).tolist()
        label[top : top + 10, left : left + 10] = 2
    images = torch.tensor([0, 1, 0.6])[labels.long()] + 0.15 * torch.randn(labels.shape, generator=rng)
    if source == "B":  # another scanner
        images = 0.8 * images + 0.25 * torch.cos(x / 3)
    return images[:, None], labels


class Pictures(L.LightningDataModule):
    """Two sources. Nobody annotated the squares of B; its test pictures have them."""

    def setup(self, stage):
        (images_a, labels_a), (images_b, labels_b) = pictures(32, "A", 0), pictures(32, "B", 1)
        labels_b[labels_b == 2] = 0
        annotated = lb.annotated([["disc", "square"]] * 32 + [["disc"]] * 32, CLASSES)
        self.train = TensorDataset(torch.cat([images_a, images_b]), torch.cat([labels_a, labels_b]), annotated)
        self.test = [TensorDataset(*pictures(8, source, 2)) for source in "AB"]

    def train_dataloader(self):
        return DataLoader(self.train, batch_size=8, shuffle=True)

    def test_dataloader(self):
        return [DataLoader(test, batch_size=8) for test in self.test]


class PartialSegmentation(L.LightningModule):
    """A network that is trained on what was annotated, whatever that is in each case."""

    def __init__(self, loss="marginal_ce+marginal_dice", dropout=0.2, lr=1e-2, width=16):
        super().__init__()
        self.save_hyperparameters()
        self.loss = lb.losses.create(loss, num_classes=len(CLASSES))
        self.dropout = lb.LabelDropout(dropout)
        layers = []
        for inside, dilation in ((1, 1), (width, 2), (width, 4), (width, 2)):
            convolution = nn.Conv2d(inside, width, 3, padding=dilation, dilation=dilation)
            layers += [convolution, nn.BatchNorm2d(width), nn.ReLU()]
        self.network = nn.Sequential(*layers, nn.Conv2d(width, self.loss.out_channels, 1))

    def training_step(self, batch, batch_idx):
        image, label, annotated = batch
        # Each process hides labels of its own, and a run that is resumed the same as one that was never interrupted.
        step = self.current_epoch * self.trainer.num_training_batches + batch_idx
        seed = step * self.trainer.world_size + self.global_rank
        shown = self.dropout(annotated, torch.Generator(self.device).manual_seed(seed))
        return self.loss(self.network(image), label, shown)

    def test_step(self, batch, batch_idx, dataloader_idx):
        image, label = batch
        predicted = self.loss.predict(self.network(image))
        for value, name in enumerate(CLASSES[1:], start=1):
            found, there = predicted == value, label == value
            dice = 2 * (found & there).sum() / (found.sum() + there.sum())
            self.log(f"{name} in source {'AB'[dataloader_idx]}", dice, add_dataloader_idx=False, sync_dist=True)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), self.hparams.lr)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--loss", default="marginal_ce+marginal_dice")
    parser.add_argument("--dropout", type=float, default=0.2)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--precision", default="32-true")
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--resume", help="a checkpoint, last.ckpt")
    options = parser.parse_args()
    L.seed_everything(0, workers=True, verbose=False)
    trainer = L.Trainer(
        accelerator="auto",
        devices=options.devices,
        strategy="ddp" if options.devices > 1 else "auto",
        precision=options.precision,
        max_epochs=options.epochs,
        logger=False,
        callbacks=[L.pytorch.callbacks.ModelCheckpoint(dirpath=".", save_last=True)],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    model = PartialSegmentation(options.loss, options.dropout)
    trainer.fit(model, datamodule=Pictures(), ckpt_path=options.resume)
    trainer.test(model, datamodule=Pictures(), verbose=False)
    if trainer.is_global_zero:
        for name, dice in trainer.callback_metrics.items():
            print(f"Dice of the {name}: {dice:.2f}")


if __name__ == "__main__":
    main()
