"""The ready settings of a paper."""

import importlib.util
import json
import pathlib

import numpy as np
import pytest

from keras_wd.cli import config
from keras_wd.cli import datasets
from keras_wd.cli import train

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
PATHS = sorted((CONFIGS / "three_mechanisms").glob("*.json"))


def test_the_files_are_those_of_the_table():
    path = CONFIGS / "three_mechanisms.py"
    spec = importlib.util.spec_from_file_location("three_mechanisms", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    written = {p.stem: json.loads(p.read_text())["flags"] for p in PATHS}
    assert written == module.configurations() and len(written) == 64
    for path in PATHS:
        settings = config.from_command_line([f"--config={path}"])
        flags = written[path.stem]
        assert {name: settings[name] for name in flags} == flags


@pytest.fixture(scope="module")
def images():
    """Colour images, small and few."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (8, 8, 8, 3), dtype=np.uint8)
    split = datasets.Split(pixels, np.arange(8, dtype="int32"))
    mean, deviation = datasets.statistics(pixels)
    return {
        classes: datasets.DataSet(
            "made up", split, split, split, classes, mean, deviation
        )
        for classes in (10, 100)
    }


def each():
    """Two of them in every run of the slow tests; K-FAC's take a minute."""
    for path in PATHS:
        mark = pytest.mark.weekly(reason="64 deep networks, two steps each")
        if path.stem in ("cifar10-resnet32-bn-adam-wd", "cifar10-vgg16-sgd-wd"):
            mark = pytest.mark.slow(reason="a deep network")
        yield pytest.param(path, id=path.stem, marks=mark)


@pytest.mark.one_backend
@pytest.mark.parametrize("path", list(each()))
def test_two_steps_of_each(path, images):
    given = [f"--config={path}", "--batch_size=4", "--jit=false"]
    settings = config.from_command_line(given)
    data = images[100 if settings["dataset"] == "cifar100" else 10]
    model = train.compiled_model(settings, data)
    model.run_eagerly = True
    curvature = train.curvature_of(settings, data)
    before = [np.array(v) for v in model.trainable_variables]
    history = model.fit(
        data.standardise(data.train.inputs),
        data.train.targets,
        batch_size=4,
        verbose=0,
        callbacks=[] if curvature is None else [curvature],
    )
    assert np.isfinite(history.history["loss"]).all()
    for old, new in zip(before, model.trainable_variables, strict=True):
        assert np.isfinite(new).all()
        if new.path.endswith("kernel"):
            assert not np.array_equal(old, new)
