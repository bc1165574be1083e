"""The fetal brain atlas of Fidon et al. 2021: six T2-weighted MRI volumes with eight tissues, in two groups.

Groups are spina bifida aperta without and with an operation before birth; three gestational ages of each. That is one
volume each for training, validation and test, so scores tell whether something works in 3-D, and nothing else.

    <root>/fetal_SB_atlas_GA<weeks>_<operated|notoperated>/srr.nii.gz, parcellation.nii.gz

Tissues (the authors' `ALL_ROI`; they score the corpus callosum as a part of the white matter too): 1 white matter, 2
intra-axial CSF, 3 cerebellum, 4 extra-axial CSF, 5 cortical grey matter, 6 deep grey matter, 7 brainstem, 8 corpus
callosum. Volumes are prepared as `nnunet` does it (`_volumes.ReadVolumes`).
"""

from __future__ import annotations

import re
from dataclasses import asdict

from pydantic import NonNegativeInt, PositiveFloat

from labeldrop_bench.data._files import list_folders, not_taken
from labeldrop_bench.data._options import FileOptions
from labeldrop_bench.data._volumes import ReadVolumes
from labeldrop_bench.data.base import Dataset, DatasetInfo, Side, find_folder
from labeldrop_bench.data.prepare import Case, assemble, prepare
from labeldrop_bench.data.split import grouped_split, report_lacking
from labeldrop_bench.extras import require
from labeldrop_bench.label_space import LabelSpace

LABEL_SPACE = LabelSpace.of_classes(
    (
        "background",
        "white matter",
        "intra-axial CSF",
        "cerebellum",
        "extra-axial CSF",
        "cortical grey matter",
        "deep grey matter",
        "brainstem",
        "corpus callosum",
    )
)
DOMAINS = ("not operated", "operated")
_FOLDER = re.compile(r"fetal_SB_atlas_(GA\d+_(not)?operated)")


class FetalAtlasOptions(FileOptions):
    """Keys of the `[data]` table, besides those of `FileOptions`.

    Attributes:
        folder: where `root` is not given, root is this folder inside the one that LABELDROP_DATA names.
        size: (D, H, W) = (superior, anterior, right) of the samples in voxels. The default holds every brain.
        spacing: along D, H, W in millimetres; the files have 0.8.
        seed: of the split.
    """

    folder: str = "fetal_brain_atlas"
    size: tuple[Side, Side, Side] = (56, 64, 56)
    spacing: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (1.6, 1.6, 1.6)
    seed: NonNegativeInt = 0


def load(options: FetalAtlasOptions) -> Dataset:
    """Reads the atlas.

    Raises:
        ValueError: no data folder given, bad files (all of them listed), or a group with fewer than three volumes.
        FileNotFoundError: there is no such folder.
        MissingPackageError: nibabel or scikit-image is not installed.
    """
    require("fetal_atlas", "nibabel", "skimage")
    root = find_folder("fetal_atlas", options.root, options.folder)
    found = [(path, match) for path in sorted(root.iterdir()) if (match := _FOLDER.fullmatch(path.name))]
    if not found:
        raise ValueError(f"fetal_atlas: root must hold folders named fetal_SB_atlas_GA<weeks>_operated, none in {root}")
    listed = [
        Case(match[1], match[1], 0 if match[2] else 1, (path / "srr.nii.gz", path / "parcellation.nii.gz"))
        for path, match in found
    ]
    others = [path.name for path in list_folders(root) if not _FOLDER.fullmatch(path.name)]
    labels = LABEL_SPACE.num_labels
    read = ReadVolumes(tuple((value, value) for value in range(labels)), labels, options.spacing, options.size)
    cases, prepared, skipped = prepare(
        listed, read, name="fetal_atlas", settings=asdict(read), skip_bad=options.skip_bad,
        not_taken=[*not_taken(root, {"their names are not fetal_SB_atlas_GA<weeks>_<operated|notoperated>": others})],
    )  # fmt: skip
    domain = [case.domain for case in cases]
    parts = grouped_split([case.patient for case in cases], domain, (1 / 3, 1 / 3, 1 / 3), options.seed).tolist()
    report_lacking(f"fetal_atlas: {root}", domain, parts, DOMAINS, [case.patient for case in cases])
    part_of = {case.patient: part for case, part in zip(cases, parts, strict=True)}
    return assemble(LABEL_SPACE, DOMAINS, cases, prepared, part_of, skipped)


INFO = DatasetInfo(
    name="fetal_atlas",
    description="Fetal brain MRI atlas, 3-D: eight tissues, six volumes, operated and not operated spina bifida",
    licence="CC0 1.0",
    source="github.com/LucasFidon/trustworthy-ai-fetal-brain-segmentation, data/SpinaBifida_Fidon2021",
    options=FetalAtlasOptions,
    load=load,
)
