"""Settings for all tests."""

import os
from importlib.util import find_spec

import pytest
import torch
from emulation.build import CannotBuildError, build
from hypothesis import HealthCheck, settings

# The first example pays for imports and compiled kernels, and shared machines stall: a deadline would only add noise.
settings.register_profile("default", deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", parent=settings.get_profile("default"), max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(scope="session")
def fabric():
    """One process on the CPU."""
    from lightning_fabric import Fabric

    return Fabric(accelerator="cpu", devices=1, precision="32-true")


def pytest_runtest_setup(item):
    if item.get_closest_marker("cuda") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device, and torch finds none")


def pytest_configure(config):
    if find_spec("labeldrop_bench._cpu") is None:
        raise pytest.UsageError(
            "labeldrop_bench is imported from a source tree whose kernels are not compiled: "
            "install it (`pip install -c constraints.txt '.[test]'`) and call `pytest`, not `python -m pytest`"
        )


@pytest.fixture(scope="session")
def emulation_directory(request):
    """Keeps what was compiled for the emulated CUDA device from one run of the tests to the next."""
    return request.config.cache.mkdir("emulated_cuda")


@pytest.fixture(scope="session")
def emulated_cuda(emulation_directory):
    """The CUDA kernels on the CPU: `with emulated_cuda(): ops.drop_labels(...)`."""
    from emulation.device import EmulatedDevice

    try:
        return EmulatedDevice(build(emulation_directory / "kernels"))
    except CannotBuildError as error:
        pytest.skip(f"the emulated CUDA device {error}")
