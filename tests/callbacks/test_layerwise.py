"""Rates per layer by feedback on the angle that each layer turns by."""

import keras
import numpy as np
import pytest

from keras_wd import callbacks
from keras_wd import decays
from keras_wd import optimizers

WIDTH, BATCH = 16, 32
RATE, DECAY = 0.01, 1.0


def model(optimizer=None, scales=(1.0, 4.0, 0.5)):
    """Normalized layers whose kernels start at different scales."""
    keras.utils.set_random_seed(0)
    made = keras.Sequential([keras.Input((WIDTH,))])
    for index, scale in enumerate(scales):
        made.add(keras.layers.Dense(WIDTH, name=f"layer_{index}"))
        made.layers[-1].kernel.assign(scale * made.layers[-1].kernel)
        made.add(keras.layers.LayerNormalization(center=False, scale=False))
    made.compile(optimizer or wrapped(), "mse", jit_compile=False)
    return made


def wrapped(**arguments):
    return optimizers.WeightDecay(
        keras.optimizers.Adam(RATE),
        decays.L2(DECAY, layerwise=True, **arguments),
    )


def noise(batches, seed=0):
    """Targets that nothing explains: the gradients do not fade."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(2, batches * BATCH, WIDTH)).astype("float32")


def fit(made, callback, batches):
    x, y = noise(batches)
    return made.fit(
        x, y, BATCH, shuffle=False, verbose=0, callbacks=[callback]
    ).history


class Angles(callbacks.LayerwiseDecay):
    """Measures, and leaves the factors alone if it is told to."""

    def __init__(self, moves, **arguments):
        super().__init__(**arguments)
        self.moves, self.found = moves, []

    def _move(self):
        self.found.append(list(self._angles.values()))
        if self.moves:
            super()._move()


def spread(angles):
    """Of the angles of the last measurements, each a geometric mean."""
    means = np.exp(np.mean(np.log(angles[-10:]), axis=0))
    return means.max() / means.min() - 1


@pytest.mark.weekly(reason="it measures every other step of two hundred")
def test_the_layers_turn_equally_fast_and_the_mean_rate_stays():
    # After 1 / (learning rate * decay) steps.
    plain, steered = Angles(False, every=2), Angles(True, every=2)
    fit(model(), plain, 100)
    made = model()
    history = fit(made, steered, 100)
    assert spread(plain.found) > 0.5
    assert spread(steered.found) < 0.1
    slots = made.optimizer.slots_of()
    factors = [float(kept["factor"].numpy()) for kept in slots.values()]
    assert len(factors) == 3 and max(factors) > 1.05
    assert np.prod(factors) == pytest.approx(1.0, rel=1e-4)
    assert history["weight_decay"] == [DECAY]
    assert history["rotation_spread"][0] >= 0 < history["rotation"][0]


def test_the_factor_of_a_tensor_multiplies_its_strength():
    made = model()
    made.optimizer.build(made.trainable_variables)
    start = [np.array(layer.kernel) for layer in made.layers[::2]]
    slots = list(made.optimizer.slots_of("l2").values())
    for kept, factor in zip(slots, (0.0, 1.0, 3.0), strict=True):
        kept["factor"].assign(factor)
    zeros = [np.zeros(v.shape, "float32") for v in made.trainable_variables]
    made.optimizer.apply(zeros, made.trainable_variables)
    for layer, before, factor in zip(
        made.layers[::2], start, (0.0, 1.0, 3.0), strict=True
    ):
        np.testing.assert_allclose(
            np.array(layer.kernel),
            before * (1 - RATE * DECAY * factor),
            rtol=1e-6,
        )


@pytest.mark.slow(reason="trains, saves, loads and trains")
def test_a_saved_run_goes_on_with_its_factors(tmp_path):
    made = model()
    fit(made, callbacks.LayerwiseDecay(1), 6)
    made.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    kept, loaded = (
        {p: float(s["factor"].numpy()) for p, s in o.slots_of().items()}
        for o in (made.optimizer, again.optimizer)
    )
    assert list(kept.values()) == list(loaded.values())
    assert any(abs(factor - 1) > 1e-3 for factor in kept.values())
    (memory,) = again.optimizer.callback_memory.values()
    assert set(memory["sums"]) == set(kept)


@pytest.mark.slow(reason="trains twice")
def test_accumulated_gradients_are_measured_over_an_update():
    optimizer = optimizers.WeightDecay(
        keras.optimizers.SGD(RATE, gradient_accumulation_steps=2),
        decays.L2(DECAY, layerwise=True),
    )
    callback = Angles(True, every=2)
    fit(model(optimizer), callback, 8)
    assert len(callback.found) >= 3


def test_what_it_cannot_steer_is_refused():
    with pytest.raises(ValueError, match="must be used with a decay that has"):
        fit(model(optimizers.SGDW(0.1)), callbacks.LayerwiseDecay(), 1)
    with pytest.raises(ValueError, match="`layerwise` must be False for"):
        decays.L2(0.1, layerwise=True, coupling="coupled")
    with pytest.raises(ValueError, match="`limit` must be a finite number > 1"):
        callbacks.LayerwiseDecay(limit=1)
