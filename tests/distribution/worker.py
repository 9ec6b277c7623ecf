"""One of two processes that train together. Run by `test_workers.py`.

Arguments: the number of this process, the addresses of both, a folder for
`<number>-<case>.npz`, and the cases.
"""

import json
import os
import pathlib
import sys

INDEX, FOLDER = int(sys.argv[1]), pathlib.Path(sys.argv[3])
ADDRESSES, NAMES = sys.argv[2].split(","), sys.argv[4:]
os.environ["TF_CONFIG"] = json.dumps(
    {
        "cluster": {"worker": ADDRESSES},
        "task": {"type": "worker", "index": INDEX},
    }
)
os.environ["KERAS_DISTRIBUTION_JOB_ADDRESSES"] = ADDRESSES[0]
os.environ["KERAS_DISTRIBUTION_NUM_PROCESSES"] = str(len(ADDRESSES))
os.environ["KERAS_DISTRIBUTION_PROCESS_ID"] = str(INDEX)

import keras  # noqa: E402
import numpy as np  # noqa: E402

from tests.distribution import cases  # noqa: E402


def store(name, arrays):
    np.savez(FOLDER / f"{INDEX}-{name}.npz", **arrays)


def with_tensorflow():
    """A loop of our own: Keras's `fit` stops at the first batch."""
    import tensorflow as tf

    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    assert strategy.num_replicas_in_sync == 2
    batches = tf.data.Dataset.from_tensor_slices((cases.X, cases.Y))
    batches = batches.batch(cases.BATCH, drop_remainder=True)
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.DATA
    )
    batches = batches.with_options(options)
    for name in NAMES:
        keras.utils.clear_session(free_memory=False)
        with strategy.scope():
            model = cases.compiled(cases.CASES[name])

        @tf.function
        def step(batch, model=model):
            return strategy.run(model.train_step, args=(batch,))

        callbacks = keras.callbacks.CallbackList(
            cases.steering(name), model=model, steps=cases.STEPS
        )
        callbacks.on_train_begin()
        callbacks.on_epoch_begin(0)
        shared = strategy.experimental_distribute_dataset(batches)
        for number, batch in enumerate(shared):
            step(batch)
            callbacks.on_train_batch_end(number)
        assert number + 1 == cases.STEPS
        store(name, cases.result(model))
    try:
        model.fit(batches, verbose=0)
        said = "nothing"
    except ValueError as error:
        said = str(error)
    (FOLDER / f"{INDEX}-fit.txt").write_text(said, encoding="utf-8")


def with_jax():
    """Keras's `fit`; every process has its part of every batch."""
    keras.distribution.initialize()
    distribution = keras.distribution.DataParallel(auto_shard_dataset=False)
    assert distribution.num_processes == 2
    own = np.arange(len(cases.X)).reshape(-1, 2, cases.BATCH // 2)[:, INDEX]
    own = own.reshape(-1)
    for name in NAMES:
        keras.utils.clear_session(free_memory=False)
        # `clear_session` forgets it.
        keras.distribution.set_distribution(distribution)
        model = cases.compiled(cases.CASES[name])
        model.fit(
            cases.X[own],
            cases.Y[own],
            batch_size=cases.BATCH // 2,
            shuffle=False,
            verbose=0,
            callbacks=cases.steering(name),
        )
        assert cases.devices_of(model) == 2
        store(name, cases.result(model))


if __name__ == "__main__":
    if keras.backend.backend() == "tensorflow":
        with_tensorflow()
    else:
        with_jax()
