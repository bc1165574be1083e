"""What nobody annotated is never known, whoever reads the files: it would be scored as if it were absent."""

import json

import numpy as np
import pytest
import torch
from data_trees import write_camus, write_echonet, write_unity
from nnunet_tree import write_array, write_nnunet

from labeldrop_bench import data
from labeldrop_bench.data.base import known_classes

SMALL = {"size": 16, "train": 3, "validation": 1, "test": 2}
VOLUMES = {**SMALL, "size": [16, 16, 16]}


def unity(folder):
    """Some curves are blurred, off or not there at all."""
    write_unity(folder / "Unity", size=64)
    for path in (folder / "Unity").glob("labels-*.json"):
        entries = json.loads(path.read_text())
        for number, entry in enumerate(entries.values()):
            labels = entry["labels"]
            if number % 4 == 0:
                labels["curve-la-endo"]["type"] = "blurred"
            if number % 4 == 1:
                del labels["curve-lv-epi"]
            if number % 4 == 2:
                labels["curve-la-endo"] = {"type": "off", "x": "", "y": ""}
        path.write_text(json.dumps(entries))
    return {"root": folder / "Unity", "size": 32, "epicardium": "curve-lv-epi", "crop_cone": False}


def camus(folder):
    write_camus(folder / "CAMUS", size=64)
    return {"root": folder / "CAMUS", "size": 32}


def echonet(folder):
    write_echonet(folder / "EchoNet", size=64)
    return {"root": folder / "EchoNet", "size": 32, "crop_cone": False}


def combined(folder):
    sources = {"camus": camus(folder), "unity": unity(folder), "echonet_dynamic": echonet(folder)}
    return {"sources": [{"name": name, **options} for name, options in sources.items()]}


def nnunet(folder):
    generator = np.random.default_rng(0)
    cases = {}
    for i in range(9):
        labels = np.zeros((20, 20), np.uint8)
        labels[2:8, 2:8], labels[10:16, 4:9] = 1, 2 * (i % 3 > 0)
        cases[f"c{i}"] = generator.integers(1, 255, (1, 20, 20), dtype=np.uint8), labels
    tree = write_nnunet(folder / "Dataset001_Partly", cases, {"background": 0, "a": 1, "b": 2}, ending=".png")
    description = json.loads((tree / "dataset.json").read_text())
    description["annotated_labels"] = {f"c{i}": ["a"] for i in range(0, 9, 3)}
    (tree / "dataset.json").write_text(json.dumps(description))
    return {"root": folder, "dataset": tree.name, "size": [16, 16], "validation": 0.3, "test": 0.3}


def folder_of_pictures(folder):
    for part in ("images", "masks"):
        for i in range(9):
            values = (np.arange(400).reshape(20, 20) % (3 if part == "masks" else 251)).astype(np.uint8)
            write_array(folder / part / f"{i}.png", np.roll(values, i, 0), (1, 1))
    return {"root": folder, "labels": {"a": 1, "b": 2}, "size": 16, "validation": 0.3, "test": 0.3}


def fetal(folder):
    for age, group in (
        (21, "notoperated"),
        (23, "notoperated"),
        (25, "notoperated"),
        *((a, "operated") for a in (25, 28, 31)),
    ):
        tree = folder / f"fetal_SB_atlas_GA{age}_{group}"
        labels = np.zeros((20, 20, 20), np.uint16)
        for value in range(1, 9):
            labels[2 * value : 2 * value + 2, 5:15, 5:15] = value
        write_array(tree / "srr.nii.gz", np.random.default_rng(age).uniform(1, 2, (20, 20, 20)), (0.8,) * 3)
        write_array(tree / "parcellation.nii.gz", labels, (0.8,) * 3)
    return {"root": folder, "size": [16, 16, 16]}


MAKERS = {
    "abdomen_phantom": lambda _: SMALL,
    "brain_phantom": lambda _: VOLUMES,
    "phantom": lambda _: SMALL,
    "camus": camus,
    "combined": combined,
    "echonet_dynamic": echonet,
    "fetal_atlas": fetal,
    "folder": folder_of_pictures,
    "nnunet": nnunet,
    "unity": unity,
}
PARTLY = {"combined", "nnunet", "unity"}  # whose files here leave something out


@pytest.mark.parametrize("name", [*dict.fromkeys([*data._BUILT_IN, *MAKERS])])
def test_what_nobody_annotated_is_not_known_and_has_no_pixel(name, tmp_path, monkeypatch):
    assert name in MAKERS, "a new data set: make files for it, in which some labels are not annotated if it can say so"
    monkeypatch.setenv("LABELDROP_CACHE", str(tmp_path / "cache"))
    info = data.get(name)
    dataset = info.load(info.options.model_validate(MAKERS[name](tmp_path)))
    space = dataset.label_space
    unannotated = 0
    for split in dataset.splits().values():
        assert not (split.known & ~known_classes(space, split.annotated)).any()
        for target, annotated in zip(split.target[:], split.annotated, strict=True):
            there = torch.bincount(target.flatten().int(), minlength=space.num_labels)[: space.num_labels] > 0
            assert not (there & ~annotated).any()
        unannotated += int((~split.annotated).sum())
    assert (unannotated > 0) == (name in PARTLY)
