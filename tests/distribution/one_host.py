"""Trains on several devices of this machine. Run by `test_one_host.py`.

A process of its own, because the devices have to be there from the start.
Arguments: a folder for what it finds, `<layout>-<case>.npz`, and the cases.
"""

import json
import os
import pathlib
import sys

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"

import keras  # noqa: E402
import numpy as np  # noqa: E402

from keras_wd.kfac import block_inversion  # noqa: E402
from keras_wd.kfac import inversion  # noqa: E402
from tests.distribution import cases  # noqa: E402

# Devices invert the small matrices of these networks, too.
block_inversion.most_by_numpy = lambda held: 0
FOLDER, NAMES = pathlib.Path(sys.argv[1]), sys.argv[2:]


def mirrored():
    import tensorflow as tf

    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * 2,
    )
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    assert strategy.num_replicas_in_sync == 2
    return strategy.scope


def data_parallel():
    devices = keras.distribution.list_devices()[:2]
    return keras.distribution.DataParallel(devices=devices).scope


def model_parallel():
    """Two devices share the batch, and two the hidden units."""
    mesh = keras.distribution.DeviceMesh((2, 2), ("batch", "model"))
    layout = keras.distribution.LayoutMap(mesh)
    layout[".*dense/kernel"] = (None, "model")
    layout[".*dense/bias"] = ("model",)
    layout[".*dense_1/kernel"] = ("model", None)
    return keras.distribution.ModelParallel(
        layout_map=layout, batch_dim_name="batch"
    ).scope


def store(layout, name, arrays):
    np.savez(FOLDER / f"{layout}-{name}.npz", **arrays)


def compare(layout, scope, names):
    """One fit per optimizer; the shapes of what one device holds."""
    shards = {}
    for name in names:
        keras.utils.clear_session(free_memory=False)
        with scope():
            model = cases.fitted(name)
            store(layout, name, cases.result(model))
        if keras.backend.backend() == "jax":
            assert cases.devices_of(model) == (2 if layout == "data" else 4)
            shards[name] = {
                v.path: v.value.addressable_shards[0].data.shape
                for v in [*model.variables, *model.optimizer.variables]
            }
    return shards


def inversions(layout, scope):
    """Each inversion of a block: the block, the device, where the result is."""
    found = {}

    class Noted(block_inversion.BlockInversion):
        def __call__(self, index, device, *args):
            inverses = super().__call__(index, device, *args)
            where = device if inverses is None else inverses[0].device
            found[kind].append((index, str(device), str(where)))
            return inverses

    original = inversion.BlockInversion
    inversion.BlockInversion = Noted
    for kind in ("kronecker", "eigen"):
        found[kind] = []
        with scope():
            store(layout, kind, cases.inverted(kind == "eigen"))
    inversion.BlockInversion = original
    return found


def callbacks(layout, scope):
    """Callbacks that read and steer the optimizer; resuming; refusals."""
    with scope():
        model, found = cases.observed()
        history = cases.fit(model, found, epochs=2).history
        weights = cases.resumed(
            FOLDER, lambda: cases.compiled(cases.CASES["sgdw"])
        )
    for name, arrays in zip(("whole", "resumed"), weights, strict=True):
        store(layout, name, {str(i): a for i, a in enumerate(arrays)})
    return history


def refusals(scope):
    messages = []
    for make in (
        lambda: cases.optimizers.SGDW(0.1, 0.1, gradient_accumulation_steps=2),
        lambda: cases.optimizers.KFAC(
            0.1, use_ema=True, ema_overwrite_frequency=5
        ),
    ):
        with scope():
            model = cases.compiled(lambda model, make=make: make())
            try:
                model.optimizer.build(model.trainable_variables)
            except ValueError as error:
                messages.append(str(error))
    return messages


def main():
    report = {}
    if keras.backend.backend() == "tensorflow":
        scope = mirrored()
        compare("data", scope, NAMES)
        report["inversions"] = {"data": inversions("data", scope)}
        report["refusals"] = refusals(scope)
    else:
        compare("data", data_parallel(), NAMES)
        scope = model_parallel()
        names = {"sgdw", "kfac"}.union(NAMES).intersection(cases.ON_MODEL)
        report["shards"] = compare("model", scope, names)
        report["inversions"] = {
            "data": inversions("data", data_parallel()),
            "model": inversions("model", scope),
        }
        scope = data_parallel()
    report["history"] = callbacks("data", scope)
    (FOLDER / "report.json").write_text(json.dumps(report), encoding="utf-8")


if __name__ == "__main__":
    main()
