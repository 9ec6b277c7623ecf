"""The rows of the table: what Keras offers, and how it is seen to be right.

A feature is a function of a subject and a folder that raises AssertionError
where something is not right. A ValueError is a refusal, whose reason is shown;
`Impossible` says why there is nothing to try.
"""

import functools
import warnings

import keras
import numpy as np
from keras import layers
from keras import ops

from tests.support.subjects import Subject
from tests.training import BATCH
from tests.training import assert_close
from tests.training import assert_equal
from tests.training import data
from tests.training import network

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
X, Y = data()


class Impossible(Exception):
    """There is nothing to combine."""


def compiled(subject, model=None, optimizer=None, **arguments):
    model = model or network()
    optimizer = optimizer or subject.make(model)
    model.compile(optimizer, LOSS, **{"jit_compile": False, **arguments})
    return model


def fitted(subject, model, *callbacks, batch=BATCH, epochs=1, first=0):
    """Train on the batches in order; returns the weights."""
    model.fit(
        X,
        Y,
        batch,
        epochs,
        0,
        [*subject.callbacks(), *callbacks],
        shuffle=False,
        initial_epoch=first,
    )
    return model.get_weights()


@functools.cache
def plain(subject):
    return fitted(subject, compiled(subject))


def eager(subject: Subject, folder):
    run = compiled(subject)
    run.run_eagerly = True
    assert_close(fitted(subject, run), plain(subject), subject.tolerance)


def xla(subject: Subject, folder):
    run = compiled(subject, jit_compile=True)
    assert_close(fitted(subject, run), plain(subject), subject.tolerance)


def several_steps(subject: Subject, folder):
    run = compiled(subject, steps_per_execution=2)
    assert_close(fitted(subject, run), plain(subject), subject.tolerance)


def by_batch(subject: Subject, folder):
    run, other = compiled(subject), compiled(subject)
    for start in range(0, len(X), BATCH):
        for model in (run, other):
            if start == 0:
                subject.ready(model)
        part = slice(start, start + BATCH)
        run.train_on_batch(X[part], Y[part])
        other.fit(X[part], Y[part], BATCH, verbose=0, shuffle=False)
    assert_close(run.get_weights(), other.get_weights(), subject.tolerance)


def gradients(model, x, y):
    """Of the loss by the trainable variables, by the backend."""
    variables = model.trainable_variables
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = LOSS(y, model(x, training=True))
        return tape.gradient(loss, [v.value for v in variables])
    if keras.backend.backend() == "torch":
        model.zero_grad()
        LOSS(y, model(x, training=True)).backward()
        return [v.value.grad.clone() for v in variables]
    import jax

    def loss(values):
        mapping = list(zip(variables, values, strict=True))
        with keras.StatelessScope(state_mapping=mapping):
            return LOSS(y, model(x, training=True))

    return jax.grad(loss)([v.value for v in variables])


def custom_loop(subject: Subject, folder):
    run, other = (subject.ready(compiled(subject)) for _ in range(2))
    for start in (0, BATCH):
        part = slice(start, start + BATCH)
        other.train_on_batch(X[part], Y[part])
        run.optimizer.apply(
            gradients(run, X[part], Y[part]), run.trainable_variables
        )
    assert_close(run.get_weights(), other.get_weights(), subject.tolerance)


def accumulation(subject: Subject, folder):
    model = network()
    optimizer = subject.make(model, gradient_accumulation_steps=2)
    parts = subject.ready(compiled(subject, model, optimizer))
    whole = subject.ready(compiled(subject))
    for model, size in ((whole, 2 * BATCH), (parts, BATCH)):
        for start in range(0, len(X), size):
            part = slice(start, start + size)
            model.train_on_batch(X[part], Y[part])
    assert_close(parts.get_weights(), whole.get_weights(), subject.tolerance)


class Averages(keras.callbacks.Callback):
    """Averages the weights after every step as `use_ema` says."""

    def __init__(self):
        super().__init__()
        self.total = None

    def on_train_batch_end(self, batch, logs=None):
        weights = [w.astype("float64") for w in self.model.get_weights()]
        pairs = zip(self.total or weights, weights, strict=True)
        self.total = [0.9 * old + 0.1 * new for old, new in pairs]


def average(subject: Subject, folder):
    model = network()
    run = compiled(subject, model, subject.ema(model))
    expected = Averages()
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    fitted(subject, run, expected, swap)
    assert_close(run.get_weights(), expected.total, subject.tolerance)


def clipping(subject: Subject, arguments, clip):
    """One step with clipping is one with gradients that are clipped before.

    A coupled decay is part of the gradient, and is clipped with it.
    """
    steps = []
    for inner in (arguments, {}):
        model = network()
        model = compiled(subject, model, subject.make(model, **inner))
        subject.ready(model)
        rng = np.random.default_rng(0)
        given = [
            rng.normal(size=v.shape).astype("float32")
            for v in model.trainable_variables
        ]
        if not inner:
            penalties = [
                subject.rate * w if subject.coupled and w.ndim > 1 else 0 * w
                for w in model.get_weights()
            ]
            sums = [g + p for g, p in zip(given, penalties, strict=True)]
            given = [c - p for c, p in zip(clip(sums), penalties, strict=True)]
        model.optimizer.apply(
            [ops.convert_to_tensor(g) for g in given],
            model.trainable_variables,
        )
        steps.append(model.get_weights())
    assert_close(*steps, subject.tolerance)


def _scaled(gradient, norm):
    return gradient * min(1.0, 0.5 / norm)


def clipvalue(subject: Subject, folder):
    clipping(
        subject,
        {"clipvalue": 0.2},
        lambda given: [np.clip(g, -0.2, 0.2) for g in given],
    )


def clipnorm(subject: Subject, folder):
    clipping(
        subject,
        {"clipnorm": 0.5},
        lambda given: [_scaled(g, np.linalg.norm(g)) for g in given],
    )


def global_clipnorm(subject: Subject, folder):
    def clip(given):
        norm = np.sqrt(sum(np.sum(g**2) for g in given))
        return [_scaled(g, norm) for g in given]

    clipping(subject, {"global_clipnorm": 0.5}, clip)


def _steps(values):
    return keras.optimizers.schedules.PiecewiseConstantDecay([2], values)


def rate_schedule(subject: Subject, folder):
    model = network()
    rate = subject.rate
    same = subject.make(model, rate=_steps([rate, rate]))
    run = compiled(subject, model, same)
    assert_close(fitted(subject, run), plain(subject), subject.tolerance)
    model = network()
    other = subject.make(model, rate=_steps([rate, 3 * rate]))
    run = fitted(subject, compiled(subject, model, other))
    assert any(np.any(a != b) for a, b in zip(run, plain(subject), strict=True))


def learning_rate_schedule(subject: Subject, folder):
    model = network()
    scheduled = subject.make(model, learning_rate=_steps([0.1, 0.1]))
    run = compiled(subject, model, scheduled)
    assert_close(fitted(subject, run), plain(subject), subject.tolerance)


def finite_and_moved(subject, dtype, tolerance):
    """Trained in another precision, in steps too small to part from float32."""
    expected = network()
    slow = {"learning_rate": 0.02}
    expected = compiled(subject, expected, subject.make(expected, **slow))
    expected = fitted(subject, expected)
    model = network(dtype=dtype)
    model.set_weights(network().get_weights())
    start = [w.astype("float32") for w in model.get_weights()]
    run = compiled(subject, model, subject.make(model, **slow))
    found = [w.astype("float32") for w in fitted(subject, run)]
    for before, after, right in zip(start, found, expected, strict=True):
        assert np.isfinite(after).all() and np.any(before != after)
        np.testing.assert_allclose(after, right, atol=tolerance)
    return run


def mixed_float16(subject: Subject, folder):
    run = finite_and_moved(subject, "mixed_float16", 0.05)
    scaled = keras.optimizers.LossScaleOptimizer(subject.make(run))
    run.compile(scaled, LOSS)
    subject.ready(run)
    before = run.get_weights()
    run.train_on_batch(np.full_like(X, np.inf), Y)
    assert_equal(before, run.get_weights())


def mixed_bfloat16(subject: Subject, folder):
    finite_and_moved(subject, "mixed_bfloat16", 0.05)


def bfloat16(subject: Subject, folder):
    if subject.adam:
        raise Impossible(
            "Keras's Adam takes no step on such variables, because its beta_2 "
            "of 0.999 is 1 in bfloat16"
        )
    finite_and_moved(subject, "bfloat16", 0.1)


def multi_around(subject: Subject, folder):
    """A subject for one layer, and another optimizer for the rest."""
    if subject.pairs:
        raise Impossible("its pairs go over layers of both parts")
    model, other = network(), keras.optimizers.SGD(0.1)
    both = keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(
            subject.make(model), {f".*{model.layers[1].name}/.*": other}
        )
    )
    run = compiled(subject, model, both)
    before = run.get_weights()
    found = fitted(subject, run)
    assert all(np.any(a != b) for a, b in zip(before, found, strict=True))


def multi_inside(subject: Subject, folder):
    from keras_wd import decays
    from keras_wd import optimizers

    optimizers.WeightDecay(
        keras.optimizers.MultiOptimizer(
            keras.optimizers.OptimizerMap(subject.make(network()), {})
        ),
        decays.L2(0.1),
    )


def constraint(subject: Subject, folder):
    model = network(kernel_constraint=keras.constraints.UnitNorm(axis=0))
    found = fitted(subject, compiled(subject, model))
    np.testing.assert_allclose(np.linalg.norm(found[0], axis=0), 1.0, rtol=1e-5)


def frozen(subject: Subject, folder):
    if subject.pairs:
        raise Impossible("both layers of its only pair are trained")
    model = network()
    model.layers[0].trainable = False
    before = model.get_weights()
    found = fitted(subject, compiled(subject, model))
    assert_equal(before[:2], found[:2])
    assert np.any(before[2] != found[2])


def without_gradient(subject: Subject, folder):
    run = subject.ready(compiled(subject))
    before = run.get_weights()
    given = list(gradients(run, X, Y))
    given[-1] = None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Gradients do not exist")
        run.optimizer.apply(given, run.trainable_variables)
    assert_equal(before[-1:], run.get_weights()[-1:])
    assert np.any(before[0] != run.get_weights()[0])


def embedding(subject: Subject, folder):
    """Looked-up rows step as a multiplication with one-hot rows does."""
    if subject.pairs:
        raise Impossible("an embedding is no layer of a pair")
    ids = np.arange(4)
    weights, found = None, []
    for first in (
        layers.Embedding(6, 5),
        layers.Dense(5, use_bias=False),
    ):
        table = isinstance(first, layers.Embedding)
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [
                keras.Input((1,) if table else (1, 6)),
                first,
                layers.Flatten(),
                layers.Dense(3),
            ]
        )
        weights = weights or model.get_weights()
        model.set_weights(weights)
        x = ids[:, None] if table else np.eye(6)[ids][:, None]
        run = compiled(subject, model)
        subject.ready(run, x)
        # One step and no row twice: beyond, Keras's Adam has a way of its own.
        run.train_on_batch(x, Y[:4])
        found.append(run.get_weights())
    # K-FAC knows that the rows of an embedding do not overlap.
    assert_close(*found, 0.05 if subject.curvature else subject.tolerance)
    moved = np.any(found[0][0][4:] != weights[0][4:])
    assert moved != subject.rests


class Stop(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt


def backup(subject: Subject, folder):
    whole = fitted(subject, compiled(subject), epochs=2)
    for stop in (True, False):
        run = compiled(subject)
        save = keras.callbacks.BackupAndRestore(folder / "backup")
        try:
            fitted(subject, run, save, *([Stop()] if stop else []), epochs=2)
        except KeyboardInterrupt:
            pass
    assert_equal(whole, run.get_weights())


def checkpoint(subject: Subject, folder):
    run = compiled(subject)
    path = folder / "model.keras"
    fitted(subject, run, keras.callbacks.ModelCheckpoint(path))
    loaded = keras.models.load_model(path)
    for model in (run, loaded):
        model.train_on_batch(X, Y)
    assert_equal(run.get_weights(), loaded.get_weights())


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        source = network()
        self.parts = source.layers
        self.build((None, 8))

    def call(self, x):
        for part in self.parts:
            x = part(x)
        return x


def subclassed(subject: Subject, folder):
    model = Subclassed()
    found = fitted(subject, compiled(subject, model))
    assert_close(found, plain(subject), subject.tolerance)


def nested(subject: Subject, folder):
    inside = network()
    model = keras.Sequential([keras.Input((8,)), inside])
    found = fitted(subject, compiled(subject, model))
    assert_close(found, plain(subject), subject.tolerance)


FEATURES = {
    "run eagerly": eager,
    "`jit_compile=True`": xla,
    "`steps_per_execution`": several_steps,
    "`train_on_batch`": by_batch,
    "custom training loop": custom_loop,
    "subclassed model": subclassed,
    "nested model": nested,
    "gradient accumulation": accumulation,
    "`clipvalue`": clipvalue,
    "`clipnorm`": clipnorm,
    "`global_clipnorm`": global_clipnorm,
    "schedule of the learning rate": learning_rate_schedule,
    "schedule of the decay": rate_schedule,
    "average of the weights, `SwapEMAWeights`": average,
    "`mixed_float16`, loss scaling": mixed_float16,
    "`mixed_bfloat16`": mixed_bfloat16,
    "`bfloat16` variables": bfloat16,
    "inside a `MultiOptimizer`": multi_around,
    "around a `MultiOptimizer`": multi_inside,
    "constraint of a kernel": constraint,
    "frozen layer": frozen,
    "variable without gradient": without_gradient,
    "embedding, sparse gradients": embedding,
    "`BackupAndRestore`": backup,
    "`ModelCheckpoint`, load, next step": checkpoint,
}

NOT_ON_TORCH = {
    "`jit_compile=True`": "torch has no XLA",
    "`steps_per_execution`": "Keras refuses it on torch",
}
