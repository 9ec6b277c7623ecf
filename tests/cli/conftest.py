import pytest

from keras_wd.cli import datasets


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """A folder in which `digits` is prepared."""
    folder = str(tmp_path_factory.mktemp("tfds"))
    datasets.load("digits", folder)
    return folder


@pytest.fixture(scope="session")
def digits(data_dir):
    return datasets.load("digits", data_dir)
