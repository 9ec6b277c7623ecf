import pytest

from keras_wd.cli import datasets

# The others are about files, flags and text.
TRAIN = ("test_devices", "test_kfac_run", "test_networks", "test_recipes")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent.name == "study" and item.path.stem not in TRAIN:
            item.add_marker("one_backend")


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """A folder in which `digits` is prepared."""
    folder = str(tmp_path_factory.mktemp("tfds"))
    datasets.load("digits", folder)
    return folder


@pytest.fixture(scope="session")
def digits(data_dir):
    return datasets.load("digits", data_dir)
