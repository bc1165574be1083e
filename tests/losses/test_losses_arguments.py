"""What losses are made and called with: every argument described, and wrong ones answered with what to do."""

import inspect
import subprocess
import sys

import numpy as np
import pytest
import torch

import labeldrop_bench as lb
from labeldrop_bench.losses import BACKENDS, _arguments_of

NAMES = lb.losses.names()
SUMS = ("ce+dice", "marginal_ce+marginal_dice")


def its_class(name):
    return lb.losses.info(name).module


# ---- made with ----


@pytest.mark.parametrize("name", NAMES)
def test_every_argument_is_in_the_signature_and_in_the_docstring(name):
    signature, text = inspect.signature(its_class(name)), inspect.getdoc(its_class(name))
    section = text.partition("\nArgs:\n")[2].partition("\n\n")[0]
    described = [
        line.split(":")[0].strip() for line in section.split("\n") if line.startswith("    ") and line[4] != " "
    ]
    assert described == list(signature.parameters)
    assert text.count("Args:") == 1
    for parameter in signature.parameters.values():
        assert parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        assert parameter.kind is parameter.KEYWORD_ONLY or parameter.name == "num_classes"
        assert parameter.annotation is not parameter.empty
    assert lb.losses.options_of(name) == list(signature.parameters)


@pytest.mark.parametrize("name", NAMES)
def test_what_losses_share_has_one_default(name):
    own = inspect.signature(its_class(name)).parameters
    for parameter in inspect.signature(lb.losses.PartialLabelLoss).parameters.values():
        assert own[parameter.name].default == parameter.default
        assert own[parameter.name].annotation == parameter.annotation


@pytest.mark.parametrize("name", NAMES)
def test_every_default_is_accepted(name):
    """By `create` as by the class; and what is not in the signature is not."""
    parameters = inspect.signature(its_class(name)).parameters
    options = {key: value.default for key, value in parameters.items()} | {"num_classes": 4}
    options |= lb.losses.info(name).options
    assert repr(lb.losses.create(name, **options)) == repr(lb.losses.create(name, num_classes=4))
    with pytest.raises(
        TypeError, match=rf"{its_class(name).__name__}: no argument 'nonsense'; there are num_classes, "
    ):
        lb.losses.create(name, num_classes=4, nonsense=1)


def test_options_that_a_class_hands_on_count():
    class Mine(lb.MarginalCrossEntropy):
        """Mine.

        Args:
            mine: a number.
        """

        def __init__(self, num_classes=None, *, mine=1, **options):
            super().__init__(num_classes, **options)
            self.mine = mine

    class Bare(Mine):
        pass

    for each in (Mine, Bare):
        assert _arguments_of(each)[:3] == ["num_classes", "mine", "class_weights"]
        assert each(4, mine=2, ignore_index=7).ignore_index == 7
        assert "    mine: a number." in inspect.getdoc(each)
        with pytest.raises(TypeError, match=r"unexpected keyword argument 'weight'|no argument 'weight'"):
            each(4, weight=[1])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ce", {"weight": None}, r"CrossEntropy: no argument 'weight'; did you mean class_weights\?"),
        ("dice", {"weight": None}, r"Dice: no argument 'weight'; did you mean class_weights\?"),
        ("dice", {"squared_pred": True}, r"did you mean squared\?"),
        ("dice", {"softmax": True}, r"did you mean activation\?"),
        ("dice", {"sigmoid": True}, r"did you mean activation\?"),
        ("ce", {"sigmoid": True}, "no argument 'sigmoid'; there are"),
        ("dice", {"to_onehot_y": True}, "targets are label values, never one-hot: leave it out"),
        ("ce", {"include_background": False}, "only the Dice losses have it"),
        ("ce", {"ignore_label": 255}, r"did you mean ignore_index\?"),
        ("ce", {"ignor_index": 255}, r"did you mean ignore_index\?"),
        ("ce", {"pixel_weight": None}, r"it belongs to the call: loss\(logits, target, annotated, pixel_weight=weight"),
        (
            "ce",
            {"weight": None, "zzz": 0},
            r"no argument 'weight' or 'zzz'; weight: did you mean class_weights\?; there",
        ),
        (
            "ce+dice",
            {"ignore_label": 255},
            r"the terms of 'ce\+dice' have no argument 'ignore_label'; did you mean ign",
        ),
        ("ce+dice", {"bach": True}, r"the terms of 'ce\+dice' have no argument 'bach'; did you mean batch\?"),
    ],
)
def test_words_of_other_libraries_are_answered(name, options, message):
    with pytest.raises(TypeError, match=message):
        lb.losses.create(name, num_classes=4, **options)


@pytest.mark.parametrize("word", ["num_class", "n_classes", "classes", "num_clases", "out_channels"])
def test_the_number_of_classes_has_one_name(word):
    with pytest.raises(TypeError, match=r"did you mean num_classes\?"):
        lb.CrossEntropy(**{word: 4})


@pytest.mark.parametrize("name", NAMES)
def test_numpy_integers_are_integers(name):
    loss = lb.losses.create(name, num_classes=np.int64(4), ignore_index=np.int16(255))
    assert (loss.label_space.num_classes, loss.ignore_index) == (4, 255)
    assert type(loss.ignore_index) is int
    assert lb.PredictiveVariance(num_classes=4, samples=np.int64(3)).samples == 3
    with pytest.raises(TypeError, match=r"PredictiveVariance: samples must be an integer, got 2\.5"):
        lb.PredictiveVariance(num_classes=4, samples=2.5)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_classes": 4.0}, TypeError, "num_classes must be an integer, got 4.0"),
        ({"num_classes": True}, TypeError, "num_classes must be an integer, got True"),
        ({"num_classes": "4"}, TypeError, "num_classes must be an integer, got '4'"),
        ({"num_classes": 1}, ValueError, "num_classes must be an integer from 2, got 1"),
        ({"num_classes": 0}, ValueError, "num_classes must be an integer from 2, got 0"),
        ({"num_classes": -1}, ValueError, "num_classes must be an integer from 2, got -1"),
        ({"label_space": ["a", "b"]}, TypeError, r"label_space must be a LabelSpace, got \['a', 'b'\]: .*of_classes"),
        ({"num_classes": 4, "ignore_index": 255.0}, TypeError, "ignore_index must be an integer, got 255.0"),
        ({"num_classes": 4, "ignore_index": None}, TypeError, "ignore_index must be an integer, got None"),
        ({"num_classes": 4, "class_weights": "1234"}, TypeError, "class_weights must be . numbers, one for .*'1234'"),
        ({"num_classes": 4, "class_weights": {1: 2.0}}, TypeError, "class_weights must be . numbers, one for "),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_values_of_the_wrong_kind_are_named(name, options, error, message):
    with pytest.raises(error, match=f"{its_class(name).__name__}: {message}"):
        lb.losses.create(name, **options)


# ---- called with ----


def arguments_for(loss):
    """logits, target, annotated of two images."""
    torch.manual_seed(0)
    logits = torch.randn(2, loss.out_channels, 5, 6)
    return logits, torch.randint(0, 4, (2, 5, 6)), torch.ones(2, 4, dtype=torch.bool)


def one_hot(target):
    return torch.nn.functional.one_hot(target, 4)


WRONG = {
    "logits None": ({"logits": lambda z, t, a: None}, TypeError, "logits must be a torch.Tensor, got None"),
    "logits list": (
        {"logits": lambda z, t, a: [z, z[..., ::2, ::2]]},
        TypeError,
        r"logits must be a torch.Tensor, got list of tensors: .*\(deep supervision\)",
    ),
    "logits dict": (
        {"logits": lambda z, t, a: {"out": z}},
        TypeError,
        "logits must be a torch.Tensor, got dict with 'out': take the tensor out of it",
    ),
    "logits numpy": (
        {"logits": lambda z, t, a: z.numpy()},
        TypeError,
        "logits must be a torch.Tensor.* got numpy.ndarray: use torch.from_numpy",
    ),
    "logits int": (
        {"logits": lambda z, t, a: z.long()},
        TypeError,
        "logits must be of a floating type, got torch.int64",
    ),
    "logits rank": (
        {"logits": lambda z, t, a: z[:, :, 0, 0]},
        ValueError,
        r"logits must be \[N, ., \*spatial\] with 1 to 3 spatial dimensions, got shape \[2, .\]",
    ),
    "logits channels": (
        {"logits": lambda z, t, a: torch.cat([z, z], dim=1)},
        ValueError,
        "logits must have . channels for 4 classes, background counted, got .*out_channels=loss.out_channels",
    ),
    "target None": ({"target": lambda z, t, a: None}, TypeError, "target must be a torch.Tensor, got None"),
    "target list": (
        {"target": lambda z, t, a: [t, t]},
        TypeError,
        r"target must be a torch.Tensor, got list of tensors: .*\(deep supervision\)",
    ),
    "target numpy": (
        {"target": lambda z, t, a: t.numpy()},
        TypeError,
        "target must be a torch.Tensor.* got numpy.ndarray: use torch.from_numpy",
    ),
    "target float": (
        {"target": lambda z, t, a: t.float()},
        TypeError,
        r"target must hold label values in an integer type, got torch.float32: .*MONAI.*target.long\(\)",
    ),
    "target bool": ({"target": lambda z, t, a: t > 0}, TypeError, r"got torch.bool: use target.to\(torch.uint8\)"),
    "target one-hot": (
        {"target": lambda z, t, a: one_hot(t).movedim(-1, 1)},
        ValueError,
        r"got \[2, 4, 5, 6\]: if these are 4 one-hot channels, use target.argmax\(dim=1\)",
    ),
    "target one-hot float": (
        {"target": lambda z, t, a: one_hot(t).movedim(-1, 1).float()},
        ValueError,
        r"use target.argmax\(dim=1\)",
    ),
    "target one-hot last": (
        {"target": lambda z, t, a: one_hot(t)},
        ValueError,
        r"if the last dimension is one-hot, use target.argmax\(dim=-1\)",
    ),
    "target size": (
        {"target": lambda z, t, a: t[..., ::2]},
        ValueError,
        r"target must be \[N, \*spatial\] = \[2, 5, 6\] to fit .*got \[2, 5, 3\]: bring both to one size",
    ),
    "target without batch": (
        {"target": lambda z, t, a: t[0]},
        ValueError,
        "add the batch's dimension with target.unsqueeze",
    ),
    "annotated list": (
        {"annotated": lambda z, t, a: a.tolist()},
        TypeError,
        "annotated must be a torch.Tensor or None, got list: use torch.tensor",
    ),
    "annotated numpy": (
        {"annotated": lambda z, t, a: a.numpy()},
        TypeError,
        "annotated must be a torch.Tensor.* got numpy.ndarray: use torch.from_numpy",
    ),
    "annotated int": (
        {"annotated": lambda z, t, a: a.int()},
        ValueError,
        r"got torch.int32 .*: use annotated.bool\(\)",
    ),
    "annotated row": (
        {"annotated": lambda z, t, a: a[0]},
        ValueError,
        r"got torch.bool with shape \[4\]: a row for each sample, for example annotated.expand\(len\(target\), -1\)",
    ),
    "annotated device": (
        {"annotated": lambda z, t, a: a.to("meta")},
        ValueError,
        r"annotated must be on the same device as .*, cpu, got meta; move it there with .to\('cpu'\)",
    ),
    "target device": (
        {"target": lambda z, t, a: t.to("meta")},
        ValueError,
        r"target must be on the same device as .*, cpu, got meta; move it there with .to\('cpu'\)",
    ),
    "weight device": (
        {"pixel_weight": lambda z, t, a: t.float().to("meta")},
        ValueError,
        "pixel_weight must be on the same device as .*, cpu, got meta",
    ),
    "weight of classes": (
        {"pixel_weight": lambda z, t, a: torch.ones(4)},
        ValueError,
        r"pixel_weight must be \[N, \*spatial\] = \[2, 5, 6\], got \[4\]: .*for one for each class there is class_w",
    ),
    "weight int": ({"pixel_weight": lambda z, t, a: t}, TypeError, r"got torch.int64: use weight.float\(\)"),
    "weight list": (
        {"pixel_weight": lambda z, t, a: [1.0] * 4},
        TypeError,
        "pixel_weight must be a torch.Tensor or None, got list",
    ),
}


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", [*NAMES, *SUMS])
def test_what_does_not_fit_says_what_to_do(name, backend, case):
    loss = lb.losses.create(name, num_classes=4, backend=backend)
    changes, error, message = WRONG[case]
    right = arguments_for(loss)
    given = dict(zip(("logits", "target", "annotated"), right, strict=True))
    given |= {argument: change(*right) for argument, change in changes.items()}
    with pytest.raises(error, match=rf"^\w+: .*{message}"):
        loss(**given)


def test_dir_has_public_names_alone():
    """Also after every module of the package that a loss needs was imported."""
    code = "import labeldrop_bench as lb, labeldrop_bench.plugins; print(*dir(lb))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = done.stdout.split()
    assert found == sorted([*lb.__all__, "__version__"])
    assert all(hasattr(lb, name) for name in found)
    assert not {"label_space", "dropout", "plugins", "version", "results"} & set(found)
