"""The training of the stand-in for Auto3DSeg's SegResNet: how transforms, loss and score are made and called.

What the published one does besides, memory, schedules, mixed precision, logs, processes, final inference, is not here.
"""

import copy
import sys
from pathlib import Path

import fire
import torch
from monai.apps.auto3dseg.transforms import EnsureSameShaped
from monai.auto3dseg.utils import datafold_read
from monai.bundle import ConfigParser
from monai.data import CacheDataset, DataLoader
from monai.inferers import SlidingWindowInfererAdapt
from monai.losses import DeepSupervisionLoss
from monai.metrics import CumulativeAverage, DiceHelper
from monai.transforms import (
    CastToTyped,
    Compose,
    CropForegroundd,
    EnsureTyped,
    LoadImaged,
    NormalizeIntensityd,
    Orientationd,
    RandAffined,
    RandFlipd,
    RandScaleIntensityd,
    RandSpatialCropd,
    SpatialPadd,
)
from monai.utils import set_determinism

KEYS = ["image", "label"]


def read(config_file):
    """The configuration, in which components and custom transforms are not made yet."""
    parser = ConfigParser(ConfigParser.load_config_file(config_file))
    config = {}
    for key, value in parser.config.items():
        if isinstance(value, dict) and "_target_" in value:
            config[key] = parser.get_parsed_content(key, instantiate=False).config
        elif "_target_" in str(value):
            config[key] = copy.deepcopy(value)
        else:
            config[key] = parser.get_parsed_content(key)
    return config


def chain(config, augment):
    """Of training, or of validation."""
    custom = {}
    for each in config["custom_data_transforms"]:
        sys.path.append(str(Path(each["path"]).absolute()))
        made = ConfigParser(dict(each["transform"])).get_parsed_content(instantiate=True)
        custom.setdefault(each["key"], []).append(made)
    random = [
        SpatialPadd(KEYS, config["roi_size"]),
        RandSpatialCropd(KEYS, config["roi_size"], random_size=False),
        *custom.get("after_crop_transforms", []),
        RandAffined(KEYS, prob=0.2, rotate_range=[0.26] * 3, mode=["bilinear", "nearest"], padding_mode="border"),
        RandScaleIntensityd("image", prob=0.5, factors=0.3),
        *[RandFlipd(KEYS, prob=0.5, spatial_axis=axis) for axis in range(3)],
    ]
    return Compose(
        [
            LoadImaged(KEYS, ensure_channel_first=True, dtype=None, allow_missing_keys=True, image_only=True),
            EnsureTyped(KEYS, dtype=torch.float, allow_missing_keys=True),
            EnsureSameShaped("label", source_key="image", allow_missing_keys=True),
            *custom.get("after_load_transforms", []),
            Orientationd(KEYS, axcodes="RAS", allow_missing_keys=True),
            CropForegroundd(KEYS, source_key="image", allow_missing_keys=True, margin=10, allow_smaller=True),
            CastToTyped("label", dtype=torch.uint8, allow_missing_keys=True),
            NormalizeIntensityd("image", nonzero=True, channel_wise=True),
            *(random if augment else []),
            *custom.get("final_transforms", []),
        ]
    )


def run(config_file):
    """Train, and keep the network with its score."""
    config = read(config_file)
    set_determinism(0)
    form = torch.channels_last_3d if config["channels_last"] else torch.preserve_format
    train, validation = datafold_read(config["data_list_file_path"], config["data_file_base_dir"], fold=config["fold"])
    cached = CacheDataset(train, chain(config, True), progress=False)
    training = DataLoader(cached, batch_size=config["batch_size"], shuffle=True)
    scoring = DataLoader(CacheDataset(validation, chain(config, False), progress=False), batch_size=1)
    model = ConfigParser(config["network"]).get_parsed_content().to(memory_format=form)
    loss_function = DeepSupervisionLoss(ConfigParser(config["loss"]).get_parsed_content(instantiate=True))
    score = DiceHelper(threshold=config["sigmoid"], ignore_empty=config.get("dice_ignore_empty", True))
    optimizer = torch.optim.AdamW(model.parameters(), lr=config["learning_rate"])
    for _ in range(config["num_epochs"]):
        train_epoch(model, training, optimizer, loss_function, score, form, config["num_steps_per_image"])
    found = validate(model, scoring, loss_function if config["calc_val_loss"] else None, score, config["roi_size"])
    folder = Path(config["ckpt_path"])
    folder.mkdir(exist_ok=True)
    torch.save({"state_dict": model.state_dict(), "config": config}, folder / "model.pt")
    report = [{"best_avg_dice_score": float(found.mean()), "of_classes": found.tolist()}]
    ConfigParser.export_config_file(report, folder / "progress.yaml", fmt="yaml")


def train_epoch(model, loader, optimizer, loss_function, score, form, steps):
    """The loss is called with plain tensors, the target having the image's memory format."""
    model.train()
    for batch in loader:
        images, targets = (batch[key].as_subclass(torch.Tensor).to(memory_format=form) for key in KEYS)
        for image, target in zip(images.chunk(steps), targets.chunk(steps), strict=True):
            optimizer.zero_grad()
            logits = model(image)
            loss_function(logits, target).backward()
            optimizer.step()
            with torch.no_grad():
                score(logits[0], target)


@torch.no_grad()
def validate(model, loader, loss_function, score, roi_size):
    """Dice of each class, of volumes."""
    model.eval()
    infer = SlidingWindowInfererAdapt(roi_size=roi_size, sw_batch_size=1, overlap=0.625, mode="gaussian")
    average = CumulativeAverage()
    for batch in loader:
        logits = infer(inputs=batch["image"].as_subclass(torch.Tensor), network=model)
        target = batch["label"].as_subclass(torch.Tensor)
        if loss_function is not None:
            loss_function(logits, target)
        value, count = score(logits, target)
        average.append(value, count=count)
    return average.aggregate()


if __name__ == "__main__":
    fire.Fire()
