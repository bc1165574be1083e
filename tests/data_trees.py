"""Writes data sets in the layouts that their owners ship, with hearts of known shape: none may be redistributed.

Each `write_*(folder, patients=..., size=...)` returns what was drawn: case name -> label map [size, size].
"""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import dataclass

import numpy as np
from nnunet_tree import write_array
from PIL import Image


@dataclass(frozen=True)
class Heart:
    """An ellipse in an ellipse (LV in LVM), with a third one below (LA); centres and half-axes are (y, x) in pixels."""

    size: int
    lv: tuple[float, float, float, float]
    wall: float
    la: tuple[float, float, float, float]

    @classmethod
    def random(cls, seed, size):
        rng = np.random.default_rng(seed)
        y, x = size * (0.36 + 0.04 * rng.random()), size * (0.45 + 0.1 * rng.random())
        height, width = size * (0.22 + 0.04 * rng.random()), size * (0.15 + 0.04 * rng.random())
        return cls(size, (y, x, height, width), 0.08 * size, (0.82 * size, x, 0.11 * size, 0.14 * size))

    def inside(self, y, x, height, width):
        rows, columns = np.mgrid[: self.size, : self.size]
        return ((rows - y) / height) ** 2 + ((columns - x) / width) ** 2 <= 1

    def labels(self, cut=1.0):
        """[size, size] uint8: 1 LV, 2 LVM, 3 LA; cut off towards the valve at `cut` half-axes from their centres."""
        y, x, height, width = self.lv
        rows = np.mgrid[: self.size, : self.size][0]
        above = rows <= y + cut * height
        result = np.zeros((self.size, self.size), np.uint8)
        result[self.inside(*self.la) & (rows >= self.la[0] - cut * self.la[2])] = 3
        result[self.inside(y, x, height + self.wall, width + self.wall) & above] = 2
        result[self.inside(*self.lv) & above] = 1
        return result

    def lines(self, number=20):
        """Tracing of the LV as in EchoNet-Dynamic: the long axis, then chords across it; x1, y1, x2, y2."""
        y, x, height, width = self.lv
        at = np.linspace(-1, 1, number)
        half = width * np.sqrt(1 - at**2)
        chords = [[x - w, y + t * height, x + w, y + t * height] for t, w in zip(at, half, strict=True)]
        return [[x, y - height, x, y + height], *chords]

    def curves(self, cut=0.8, number=11):
        """Nodes (x, y) along the borders of `labels(cut)`, from hinge to hinge: LV, outer wall, LA."""

        def arc(y, x, height, width, end):
            angle = np.linspace(-end, end, number)
            return x + width * np.sin(angle), y - height * np.cos(angle)

        y, x, height, width = self.lv
        outer = height + self.wall
        lv = arc(y, x, height, width, np.arccos(-cut))
        wall = arc(y, x, outer, width + self.wall, np.arccos(-cut * height / outer))
        return lv, wall, arc(self.la[0], self.la[1], -self.la[2], self.la[3], np.arccos(-cut))

    def image(self, labels):
        """Speckled grey values: each structure at a level of its own."""
        level = np.array([30, 90, 190, 120])[labels]
        noise = np.random.default_rng(int(labels.sum())).normal(0, 8, labels.shape)
        return np.clip(level + noise, 0, 255).astype(np.uint8)


def write_camus(folder, patients=10, size=64, release="nifti", lists=True):
    """CAMUS with 8:1:1 patients in its lists. NIfTI pixels are taller than wide, as the release's are."""
    drawn, names = {}, [f"patient{i + 1:04d}" for i in range(patients)]
    for number, patient in enumerate(names):
        place = folder / ("database_nifti" if release == "nifti" else "training") / patient
        place.mkdir(parents=True)
        for v, view in enumerate(("2CH", "4CH")):
            quality = ("Good", "Medium", "Poor")[(number + v) % 3]
            (place / f"Info_{view}.cfg").write_text(f"ED: 1\nES: 18\nNbFrame: 18\nImageQuality: {quality}\nEF: 56\n")
            for t, instant in enumerate(("ED", "ES")):
                heart = Heart.random(100 * number + 10 * v + t, size)
                labels = drawn[f"{patient}-{view}-{instant}"] = heart.labels()
                save = save_nifti if release == "nifti" else save_mhd
                save(place / f"{patient}_{view}_{instant}", heart.image(labels))
                save(place / f"{patient}_{view}_{instant}_gt", labels)
    if release == "nifti" and lists:
        (folder / "database_split").mkdir()
        shuffled = names[1::2] + names[::2]
        tenth = max(1, patients // 10)
        parts = {
            "training": shuffled[2 * tenth :],
            "validation": shuffled[tenth : 2 * tenth],
            "testing": shuffled[:tenth],
        }
        for part, members in parts.items():
            (folder / "database_split" / f"subgroup_{part}.txt").write_text("\n".join(members) + "\n")
    return drawn


def save_nifti(stem, array):
    import nibabel

    nibabel.save(nibabel.Nifti1Image(array.T, np.diag([0.3, 0.15, 1, 1])), f"{stem}.nii.gz")


def save_mhd(stem, array):
    import SimpleITK as sitk  # noqa: N813

    sitk.WriteImage(sitk.GetImageFromArray(array[None]), f"{stem}.mhd")


def write_echonet(folder, patients=10, size=64, ending="", whole=False):
    """EchoNet-Dynamic with 8:1:1 videos. Frame 2 is end-systole, 5 end-diastole; `ending`: of names in the list.

    `whole`: the videos show LVM and LA as well, as real ones do; only the LV is traced.
    """
    (folder / "Videos").mkdir(parents=True)
    drawn, listed, traced = {}, [], []
    for number in range(patients):
        video = f"0X{number:016X}"
        hearts = {2: Heart.random(10 * number, size), 5: Heart.random(10 * number + 1, size)}
        masks = {frame: (heart.labels() == 1).astype(np.uint8) for frame, heart in hearts.items()}
        blank = np.zeros((size, size), np.uint8)
        seen = {frame: heart.labels() if whole else masks[frame] for frame, heart in hearts.items()}
        frames = [hearts[i].image(seen[i]) if i in hearts else blank for i in range(8)]
        save_avi(folder / "Videos" / f"{video}.avi", frames)
        listed.append([f"{video}{ending}", 56.1, 40.2, 90.3, size, size, 50, len(frames), _echonet_split(number)])
        for frame, heart in hearts.items():
            traced += [[f"{video}.avi", *line, frame] for line in heart.lines()]
        drawn |= {f"{video}-ES": masks[2], f"{video}-ED": masks[5]}
    head = ["FileName", "EF", "ESV", "EDV", "FrameHeight", "FrameWidth", "FPS", "NumberOfFrames", "Split"]
    save_csv(folder / "FileList.csv", [head, *listed])
    save_csv(folder / "VolumeTracings.csv", [["FileName", "X1", "Y1", "X2", "Y2", "Frame"], *traced])
    return drawn


def _echonet_split(number):
    return {0: "TEST", 1: "VAL"}.get(number % 10, "TRAIN")


def save_avi(path, frames):
    """Grey frames as an AVI of JPEG pictures."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=50, options={"qscale": "2"})
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape, "yuvj420p"
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.stack([frame] * 3, -1), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def save_csv(path, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def unity_video(number):
    """The code of a video, without the leading "01-"."""
    return hashlib.sha256(str(number).encode()).hexdigest()


UNITY_PARTS = {"train": range(2, 10), "tune": [1], "ival": [0]}  # places of the videos, modulo 10


def write_unity(folder, patients=10, size=64, leading=True, listed=False, parts=UNITY_PARTS):
    """Unity Imaging with two frames of each video.

    `leading`: names begin with "01-"; `listed`: a label is a list of instances; `parts`: files and whose they are.
    Label maps: 1 LV, 2 LVM, 3 LA, whatever the options of the reader.
    """
    drawn, entries = {}, {}
    for number in range(patients):
        code = unity_video(number)
        place = folder / "png-cache" / "01" / code[:2] / code[2:4]
        place.mkdir(parents=True, exist_ok=True)
        for frame in range(2):
            heart, name = Heart.random(10 * number + frame, size), f"{code}-{frame:04d}"
            labels = drawn[f"01-{name}"] = heart.labels(cut=0.8)
            key = f"01-{name}.png" if leading else f"{name}.png"
            Image.fromarray(heart.image(labels)).save(place / key)
            named = zip(("curve-lv-endo", "curve-lv-epi", "curve-la-endo"), heart.curves(), strict=True)
            entry = {label: unity_curve(*nodes) for label, nodes in named}
            entry["lv-apex-endo"] = {"type": "point", "x": "1.0", "y": "2.0"}
            entries[key] = {"labels": {label: [value] if listed else value for label, value in entry.items()}}
    for part, numbers in {**parts, "all": range(10)}.items():
        codes = {unity_video(number) for number in range(patients) if number % 10 in numbers}
        of_part = {key: entry for key, entry in entries.items() if key.removeprefix("01-")[:64] in codes}
        (folder / f"labels-{part}.json").write_text(json.dumps(of_part))
    return drawn


def unity_curve(x, y):
    """A curve as the label files have it."""
    return {"type": "curve", "x": " ".join(f"{v:.2f}" for v in x), "y": " ".join(f"{v:.2f}" for v in y)}


FETAL_ATLAS = (
    "GA21_notoperated", "GA23_notoperated", "GA25_notoperated", "GA25_operated", "GA28_operated", "GA31_operated",
)  # fmt: skip


def write_fetal_atlas(folder):
    """Six volumes as the authors store them: 0.8 mm, zero around the brain, labels 0 ... 8."""
    for i, name in enumerate(FETAL_ATLAS):
        image, labels = np.zeros((2, 40, 44, 40), np.float32)
        image[4:36, 6:38, 4:36] = 100 + i + np.arange(32)
        for value in range(1, 9):
            labels[4 * value - 2 : 4 * value + 2, 10:20, 10:30] = value
        place = folder / f"fetal_SB_atlas_{name}"
        write_array(place / "srr.nii.gz", image, (0.8,) * 3)
        write_array(place / "parcellation.nii.gz", labels.astype(np.uint16), (0.8,) * 3)
    (folder / "LICENSE.txt").write_text("CC0", encoding="utf-8")


def write_ultrasound(folder, together):
    """Regional anaesthesia: pictures of three sizes, palette masks with nerve 1 and vessel 2.

    `together`: lists of names that the suite keeps in one split, all of the largest size here.
    """
    sizes = {name: (761, 632) for names in together for name in names}
    sizes |= {f"9{i:03}": ((512, 512), (534, 512))[i % 2] for i in range(14)}
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for number, (name, (width, height)) in enumerate(sizes.items()):
        labels = np.zeros((height, width), np.uint8)
        labels[100:250, 50 + number : 200 + number] = 1
        labels[300:450, 250:400] = 2
        grey = np.array([30 + number, 200, 110], np.uint8)[labels]
        Image.fromarray(grey).save(folder / "images" / f"{name}.png")
        mask = Image.fromarray(labels, "P")
        mask.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
        mask.save(folder / "masks" / f"{name}.png")


def dice(a, b):
    """Of two boolean masks."""
    return 2 * (a & b).sum() / (a.sum() + b.sum())
