"""The option --benchmark. Tests and benchmarks each have a conftest.py of their own."""

import pytest


def pytest_addoption(parser):
    parser.addoption(
        "--benchmark", action="store_true", dest="run_benchmarks", help="run benchmarks/ instead of tests/"
    )


def pytest_configure(config):
    if config.option.run_benchmarks and config.args_source is not pytest.Config.ArgsSource.ARGS:
        config.args = [str(config.rootpath / "benchmarks")]
