"""The kernels' arguments as keywords: whoever forgets one must not get a null pointer."""

import pytest

from labeldrop_bench.ops._native import _MODULES

CPU = _MODULES["cpu"]


def test_a_kernel_takes_all_of_its_arguments_and_no_other():
    arguments = dict.fromkeys(("annotated", "probability", "out", "samples", "labels", "key"), 0)
    CPU.label_dropout(**arguments)
    with pytest.raises(TypeError, match="missing argument samples"):
        CPU.label_dropout(**{name: value for name, value in arguments.items() if name != "samples"})
    with pytest.raises(TypeError, match="an argument that there is not"):
        CPU.label_dropout(**arguments, sample=0)
    with pytest.raises((TypeError, RuntimeError), match=r"float|cast|int"):
        CPU.label_dropout(**{**arguments, "labels": 1.5})
