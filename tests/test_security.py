"""What is loaded runs no code of its own, and nothing is fetched."""

import ast
import json
import pathlib
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest

from keras_wd import constraints
from keras_wd import decays
from keras_wd import graph
from keras_wd import optimizers
from keras_wd import regularizers
from tests import catalogue
from tests.test_layers import CLI_ONLY
from tests.training import data
from tests.training import network

ROOT = pathlib.Path(__file__).parents[1]
OPTIMIZERS = {
    **{
        name: lambda model, make=make: make()
        for name, make in catalogue.OPTIMIZERS.items()
    },
    "every decay": lambda model: optimizers.WeightDecay(
        keras.optimizers.SGD(0.1),
        [
            *(make() for make in catalogue.DECAYS.values()),
            decays.PathNorm(0.3, graph.homogeneous_units(model)),
        ],
    ),
    "PathProx": lambda model: optimizers.PathProx(model, 0.1, 0.3),
    "KFAC": lambda model: optimizers.WeightDecay(
        optimizers.KFAC(0.1, seed=1), decays.L2(0.1)
    ),
    "scaled": lambda model: keras.optimizers.LossScaleOptimizer(
        optimizers.SGDW(0.1)
    ),
}
LOADING = """
import socket
import sys

import keras


def refuse(*arguments, **keywords):
    raise OSError("no network here")


for name in ("connect", "connect_ex", "sendto"):
    setattr(socket.socket, name, refuse)
for name in ("getaddrinfo", "gethostbyname", "create_connection"):
    setattr(socket, name, refuse)
before = set(sys.modules)
import keras_wd

print(sorted(set(sys.modules) - before))
import numpy as np

for path in sys.argv[1:]:
    model = keras.saving.load_model(path)
    variables = [*model.weights, *model.optimizer.variables]
    values = [np.array(keras.ops.convert_to_numpy(v.value)) for v in variables]
    np.savez(path.replace(".keras", ".npz"), *values)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Models of all optimizers; a process that loads them was here."""
    folder = tmp_path_factory.mktemp("models")
    for number, make in enumerate(OPTIMIZERS.values()):
        model = network(
            seed=number,
            kernel_regularizer=regularizers.Lp(0.1),
            bias_regularizer=regularizers.GroupLasso(0.1),
            kernel_constraint=constraints.FixedNorm(),
        )
        model.compile(make(model), "mse")
        model.optimizer.build(model.trainable_variables)
        if number == list(OPTIMIZERS).index("KFAC"):
            model.optimizer.inner_optimizer.register(model, data(1)[0])
        model.save(folder / f"{number}.keras")
        variables = [*model.weights, *model.optimizer.variables]
        values = [keras.ops.convert_to_numpy(v.value) for v in variables]
        np.savez(folder / f"{number}.saved.npz", *map(np.array, values))
    done = subprocess.run(
        [sys.executable, "-c", LOADING, *map(str, folder.glob("*.keras"))],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    (folder / "imported").write_text(done.stdout + done.stderr)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow(reason="a fresh process, after a file of every optimizer")
def test_a_fresh_process_loads_every_optimizer_in_safe_mode(folder):
    for number, name in enumerate(OPTIMIZERS):
        with (
            np.load(folder / f"{number}.saved.npz") as saved,
            np.load(folder / f"{number}.npz") as loaded,
        ):
            assert set(saved) == set(loaded), name
            for key in saved:
                np.testing.assert_array_equal(saved[key], loaded[key], name)


@pytest.mark.slow(reason="a fresh process, after a file of every optimizer")
def test_a_model_file_is_json_and_arrays(folder):
    for path in folder.glob("*.keras"):
        with zipfile.ZipFile(path) as file:
            assert set(file.namelist()) == {
                *("config.json", "metadata.json", "model.weights.h5"),
            }
            config = file.read("config.json").decode()
        json.loads(config)
        assert "__lambda__" not in config


@pytest.mark.slow(reason="a fresh process, after a file of every optimizer")
def test_importing_the_package_needs_no_network_and_little_else(folder):
    text = (folder / "imported").read_text().splitlines()[0]
    imported = {name.split(".")[0] for name in ast.literal_eval(text)}
    assert "keras_wd" in imported
    assert not imported & {*CLI_ONLY, "jinja2", "rich", "ray", "requests"}
    assert "keras_wd.cli" not in ast.literal_eval(text)


UNSAFE_MODULES = {
    *("pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"),
    *("urllib", "http", "requests", "socket", "ftplib", "ctypes"),
}
# Asks whether a host answers before TensorFlow Datasets downloads from it.
ALLOWED = {"downloads.py": {"socket", "urllib"}}
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__"}


def test_the_package_neither_unpickles_nor_fetches_nor_evaluates():
    for path in sorted((ROOT / "keras_wd").rglob("*.py")):
        unsafe = UNSAFE_MODULES - ALLOWED.get(path.name, set())
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            where = f"{path.name}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import):
                names = {alias.name.split(".")[0] for alias in node.names}
                assert not names & unsafe, where
            elif isinstance(node, ast.ImportFrom):
                package = (node.module or "").split(".")[0]
                assert package not in unsafe, where
            elif isinstance(node, ast.Call):
                called = getattr(node.func, "id", None)
                assert called not in UNSAFE_CALLS, where
                for keyword in node.keywords:
                    if keyword.arg in ("allow_pickle", "shell"):
                        value = getattr(keyword.value, "value", True)
                        assert value is False, where
                    # Of a model in memory, which whoever made it could run.
                    if path.name != "rebuild.py":
                        assert keyword.arg != "safe_mode", where
