"""Several devices of one machine end with the weights of one device."""

import json

import keras
import numpy as np
import pytest

from keras_wd.kfac import block_inversion
from tests.distribution import cases
from tests.distribution.processes import chosen
from tests.distribution.processes import finish
from tests.distribution.processes import start

pytestmark = [
    pytest.mark.slow(reason="starts a process with several devices"),
    pytest.mark.devices,
]
TENSORFLOW = keras.backend.backend() == "tensorflow"
CLIPPED = "coupled_clip"  # of which the others are variations
LAYOUTS = [("data", name) for name in cases.CASES if name != CLIPPED]
if not TENSORFLOW:
    LAYOUTS += [("model", name) for name in cases.ON_MODEL]


@pytest.fixture(scope="module")
def folder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("devices")
    names = chosen(request)
    module = "tests.distribution.one_host"
    finish(start("-m", module, folder, CLIPPED, *names))
    return folder


@pytest.fixture(scope="module")
def report(folder):
    return json.loads((folder / "report.json").read_text("utf-8"))


@pytest.mark.parametrize("layout, name", LAYOUTS)
def test_devices_take_the_steps_of_one(layout, name, folder):
    cases.assert_same(np.load(folder / f"{layout}-{name}.npz"), name)


def test_clipping_and_loss_scale_are_of_the_whole_batch(folder):
    cases.assert_same(np.load(folder / f"data-{CLIPPED}.npz"), CLIPPED)


@pytest.mark.parametrize("layout", sorted({layout for layout, _ in LAYOUTS}))
@pytest.mark.parametrize("kind", ["kronecker", "eigen"])
def test_a_block_is_inverted_by_one_device_for_all(
    kind, layout, folder, report, monkeypatch
):
    found = np.load(folder / f"{layout}-{kind}.npz")
    # NumPy's eigenvectors may point the other way.
    monkeypatch.setattr(block_inversion, "most_by_numpy", lambda held: 0)
    for key, expected in cases.inverted(kind == "eigen").items():
        np.testing.assert_allclose(
            found[key], expected, rtol=1e-4, atol=1e-5, err_msg=key
        )
    done = report["inversions"][layout][kind]
    assert all(device == where for _, device, where in done)
    # Twice all of them, and then what failed: an indefinite factor has an
    # inverse with more damping and eigenvectors without, one of NaN has none.
    again = [0, 1] if kind == "kronecker" else [1]
    rounds = [[0, 1], [0, 1], again, [1], [1]]
    assert sorted(i for i, _, _ in done) == sorted(sum(rounds, []))
    for both in (done[:2], done[2:4]):
        assert len({device for _, device, _ in both}) == 2


def test_callbacks_read_and_steer_the_optimizer_of_all_devices(report):
    model, callbacks = cases.observed()
    expected = cases.fit(model, callbacks, epochs=2).history
    assert expected["weight_decay"][-1] < 0.5
    assert {"effective_learning_rate", "rotation"} <= set(expected)
    assert report["history"].keys() == expected.keys()
    for key, values in expected.items():
        found = report["history"][key]
        np.testing.assert_allclose(found, values, rtol=1e-3, err_msg=key)


def test_a_broken_fit_is_resumed_to_the_same_bits(folder):
    whole = np.load(folder / "data-whole.npz")
    resumed = np.load(folder / "data-resumed.npz")
    for key in whole:
        np.testing.assert_array_equal(resumed[key], whole[key])


if TENSORFLOW:

    def test_what_keras_does_now_and_then_is_refused(report):
        accumulation, overwriting = report["refusals"]
        for name, message in (
            ("gradient_accumulation_steps=2", accumulation),
            ("ema_overwrite_frequency=5", overwriting),
        ):
            assert "must be None on several replicas" in message
            assert f"{name} with 2 replicas" in message

else:

    def test_the_model_axis_holds_kernels_and_slots_in_parts(report):
        for shards in report["shards"].values():
            assert shards["sequential/dense/kernel"] == [8, 3]
            assert shards["sequential/dense_1/kernel"] == [3, 3]
        slots = report["shards"]["sgdw"]
        assert slots["sgdw_sgd/sequential_dense_kernel_momentum"] == [8, 3]
        factors = report["shards"]["kfac"]
        assert factors["kfac/sequential_dense_kernel_velocity"] == [8, 3]
        # Every device has the factors, and inverts them, whole.
        key = "kfac/sequential_dense_kernel_output_factor_inverse"
        assert factors[key] == [6, 6]
