import os
from pathlib import Path

import pydantic
import pytest
import torch
from data_trees import FETAL_ATLAS, write_fetal_atlas

from labeldrop_bench.data.base import VARIABLE
from labeldrop_bench.data.fetal_atlas import FetalAtlasOptions, load


@pytest.fixture
def atlas(tmp_path):
    """Six volumes as the authors store them."""
    write_fetal_atlas(tmp_path)
    return tmp_path


def test_one_volume_of_each_group_in_each_split(atlas):
    dataset = load(FetalAtlasOptions(root=atlas, size=(16, 16, 16)))
    assert dataset.domains == ("not operated", "operated")
    assert dataset.label_space.num_classes == 9
    for split in dataset.splits().values():
        assert split.images.shape == (2, 1, 16, 16, 16)
        assert split.domain.tolist() == [0, 1]
        assert [case.split("_")[1] for case in split.cases] == ["notoperated", "operated"]
        assert all(torch.unique(truth).tolist() == [*range(9)] for truth in split.truth[:])
        assert split.known.all()
    assert sorted(case for split in dataset.splits().values() for case in split.cases) == sorted(FETAL_ATLAS)
    other = load(FetalAtlasOptions(root=atlas, size=(16, 16, 16), seed=1))
    assert [s.cases for s in other.splits().values()] != [s.cases for s in dataset.splits().values()]


def test_errors(atlas, tmp_path_factory):
    with pytest.raises(ValueError, match="root must hold folders named fetal_SB_atlas"):
        load(FetalAtlasOptions(root=tmp_path_factory.mktemp("empty")))
    (atlas / "fetal_SB_atlas_GA21_notoperated" / "parcellation.nii.gz").unlink()
    (atlas / "fetal_SB_atlas_GA28_operated" / "srr.nii.gz").write_bytes(b"")
    with pytest.raises(ValueError, match=r"fetal_atlas: 2 problem") as error:
        load(FetalAtlasOptions(root=atlas))
    assert "GA21_notoperated/parcellation.nii.gz: cannot be found" in str(error.value)
    assert "GA28_operated/srr.nii.gz: cannot be read" in str(error.value)
    with (
        pytest.warns(UserWarning, match="2 problem"),
        pytest.raises(ValueError, match=r"split 'test' has no image of domain 'not operated' \(2 image"),
    ):
        load(FetalAtlasOptions(root=atlas, size=(16, 16, 16), skip_bad=True))
    with pytest.raises(pydantic.ValidationError, match="sizes"):
        FetalAtlasOptions(sizes=3)


@pytest.mark.skipif(
    not (Path(os.environ.get(VARIABLE, "")) / "fetal_brain_atlas").is_dir() or VARIABLE not in os.environ,
    reason=f"real volumes: {VARIABLE} does not name a folder that holds fetal_brain_atlas/",
)
def test_real_atlas():
    """The default grid holds every brain: a larger one has the same voxels of every tissue."""
    default, larger = (load(FetalAtlasOptions(size=size)) for size in ((56, 64, 56), (72, 80, 72)))
    for name, split in default.splits().items():
        for truth, whole in zip(split.truth[:], larger.splits()[name].truth[:], strict=True):
            counts = torch.bincount(truth.flatten().long(), minlength=9)
            assert torch.equal(counts[1:], torch.bincount(whole.flatten().long(), minlength=9)[1:])
            assert (counts[1:] > 0).all()
    # The CSF around the brain is brightest in T2, cortical grey and deep grey matter are dark.
    image, truth = default.test.images[:][1, 0], default.test.truth[1]
    level = [image[truth == c].mean() for c in range(9)]
    assert level[4] > level[1] > level[5] > level[0]


def test_folders_with_other_names_are_listed(atlas):
    (atlas / "fetal_SB_atlas_GA22-operated").mkdir()
    (atlas / ".cache").mkdir()
    with pytest.warns(UserWarning, match="1 not taken.*: fetal_SB_atlas_GA22-operated"):
        assert len(load(FetalAtlasOptions(root=atlas, size=(16, 16, 16))).skipped) == 1
