"""Shared by the tests of the data sets."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """Prepared cases of a test are kept for that test alone."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("LABELDROP_CACHE", str(folder))
    return folder


@pytest.fixture
def make_folder(tmp_path):
    """Write an image-mask folder: {file name: (image array, mask array)}; returns its root."""

    def make(files, palette=True):
        for part in ("images", "masks"):
            (tmp_path / part).mkdir(exist_ok=True)
        for name, (image, mask) in files.items():
            Image.fromarray(image).save(tmp_path / "images" / name)
            picture = Image.fromarray(mask)
            if palette:
                picture = picture.convert("P")
                picture.putdata(mask.ravel().tolist())
                picture.putpalette([(37 * i) % 256 for i in range(768)])  # colours that are not the values
            picture.save(tmp_path / "masks" / name)
        return tmp_path

    return make


@pytest.fixture
def picture():
    """A random grey image and a mask with a square of 1 and a square of 2: picture(seed, height, width)."""

    def draw(seed, height=40, width=32):
        image = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
        mask = np.zeros((height, width), np.uint8)
        mask[4:16, 4:16] = 1
        mask[20:32, 12:24] = 2
        return image, mask

    return draw
