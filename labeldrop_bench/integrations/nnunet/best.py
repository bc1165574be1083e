"""nnU-Net's choice of the best configuration, from scores of what was annotated."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from nnunetv2.evaluation import accumulate_cv_results as accumulation
from nnunetv2.evaluation import find_best_configuration as choice
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.postprocessing import remove_connected_components as postprocessing

from labeldrop_bench.errors import UserError

from .annotate import name_of, read_json
from .annotations import read_annotations
from .scores import only_annotated


def find_best_configuration(arguments: Sequence[str]) -> None:
    """What nnUNetv2_find_best_configuration does with these arguments, the data set being the first.

    It scores the cases of all folds anew, ensembles as well, and tries what postprocessing does to the scores.

    Raises:
        UserError: no such data set, or one that does not say what was annotated.
    """
    if not nnUNet_preprocessed.is_set():
        raise UserError("nnUNet_preprocessed is not set: export nnUNet_preprocessed=FOLDER")
    name = name_of(arguments[0])
    folder = Path(nnUNet_preprocessed.get()) / name
    description = read_json(folder / "dataset.json")
    ending = description["file_ending"]
    cases = {path.name.removesuffix(ending) for path in (folder / "gt_segmentations").glob(f"*{ending}")}
    annotations = read_annotations(description, cases, folder / "dataset.json")
    sys.argv = ["nnUNetv2_find_best_configuration", name, *arguments[1:]]  # its only way in for arguments
    with only_annotated(annotations, [accumulation, choice, postprocessing]):
        choice.find_best_configuration_entry_point()
