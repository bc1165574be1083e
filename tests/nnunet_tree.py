"""Data sets in nnU-Net's raw format, small enough for tests: written, and read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from labeldrop_bench.data.nnunet import NnunetOptions, load

BRATS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}
ENOUGH = {"validation": 0.2, "test": 0.2}
LABELS = {"background": 0, "a": 1, "b": 2}


def write_nnunet(
    folder: Path,
    cases: dict[str, tuple[NDArray[Any], NDArray[Any]]],
    labels: dict[str, Any],
    *,
    ending: str = ".nii.gz",
    channel_names: tuple[str, ...] = ("T2",),
    spacing: tuple[float, ...] = (1.0, 1.0, 1.0),
    test: dict[str, tuple[NDArray[Any], NDArray[Any]]] | None = None,
) -> Path:
    """Write a data set; returns its folder.

    Args:
        folder: of the data set, such as root / "Dataset001_Test".
        cases: name -> image [channels, H, W] or [channels, D, H, W], and label map without the channels.
        labels: of dataset.json, as they are.
        ending: of the files; says which library writes them.
        channel_names: one for each channel.
        spacing: millimetres along D, H, W.
        test: cases of imagesTs and labelsTs.
    """
    folder.mkdir()
    for part, members in (("Tr", cases), ("Ts", test or {})):
        for name, (image, label_map) in members.items():
            for number, channel in enumerate(image):
                write_array(folder / f"images{part}" / f"{name}_{number:04d}{ending}", channel, spacing)
            write_array(folder / f"labels{part}" / f"{name}{ending}", label_map, spacing)
    description = {
        "channel_names": {str(i): name for i, name in enumerate(channel_names)},
        "labels": labels,
        "numTraining": len(cases),
        "file_ending": ending,
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


def write_array(path: Path, values: NDArray[Any], spacing: tuple[float, ...], axes: str = "RAS") -> None:
    """Write [H, W] as a picture, or [D, H, W] = (superior, anterior, right) as a volume stored along other axes.

    Args:
        path: its ending says how.
        values: what to write.
        spacing: millimetres along D, H, W.
        axes: directions in which the stored axes run, such as "LPS".
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith((".png", ".tif")):
        Image.fromarray(values).save(path)
        return
    import nibabel

    values = values if values.ndim == 3 else values[None]
    stored = nibabel.Nifti1Image(values.T, np.diag([*reversed(spacing), 1.0]))
    turn = nibabel.orientations.ornt_transform(
        nibabel.orientations.axcodes2ornt("RAS"), nibabel.orientations.axcodes2ornt(axes)
    )
    turned = stored.as_reoriented(turn)
    if path.name.endswith((".nii", ".nii.gz")):
        nibabel.save(turned, path)
        return
    import SimpleITK as sitk  # noqa: N813

    array, affine = np.asarray(turned.dataobj), np.diag([-1.0, -1.0, 1.0, 1.0]) @ turned.affine  # RAS to LPS
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    size = np.sqrt((affine[:3, :3] ** 2).sum(0))
    image.SetSpacing(size.tolist())
    image.SetDirection((affine[:3, :3] / size).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    sitk.WriteImage(image, str(path))


def volume(seed, shape=(18, 20, 16), channels=1, values=3):
    """Noise that is nowhere zero, and a block of each label value."""
    generator = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint8)
    for value in range(1, values):
        labels[3 * value : 3 * value + 3, 4:9, 5:11] = value
    return generator.uniform(1, 2, (channels, *shape)).astype(np.float32), labels


def picture(seed, shape=(24, 20)):
    image = np.random.default_rng(seed).integers(1, 255, (1, *shape), dtype=np.uint8)
    labels = np.zeros(shape, np.uint8)
    labels[4:9, 3:8], labels[12:20, 6:9] = 1, 2
    return image, labels


def read(folder, **options):
    options = {"size": (18, 20, 16), **ENOUGH, **options}
    return load(NnunetOptions(root=folder.parent, dataset=folder.name, **options))


def by_case(dataset):
    """case -> (split, image, truth)."""
    return {
        case: (name, split.images[i], split.truth[i])
        for name, split in dataset.splits().items()
        for i, case in enumerate(split.cases)
    }


def change(folder, **keys):
    path = folder / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))
