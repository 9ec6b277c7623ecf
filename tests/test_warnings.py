"""Warnings are errors in our tests, and nowhere else."""

import tomllib
import warnings

import pytest


def test_a_warning_in_a_test_is_an_error():
    with pytest.raises(UserWarning, match="of a test"):
        warnings.warn("of a test", UserWarning, stacklevel=1)


def test_a_warning_before_the_tests_is_none(pytestconfig):
    settings = tomllib.loads(pytestconfig.inipath.read_text("utf-8"))
    filters = settings["tool"]["pytest"]["ini_options"].get("filterwarnings")
    assert not filters, "it would also hold for the plugins of a user's pytest"
