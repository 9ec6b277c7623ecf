"""Which layers get blocks, which do not, and what the report says."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

from keras_wd import kfac
from keras_wd import optimizers
from keras_wd.kfac import KroneckerBlock
from keras_wd.kfac import Registration
from keras_wd.kfac import interception
from keras_wd.kfac.registration import register
from keras_wd.optimizers.kfac import KFAC
from tests.kfac.running import array
from tests.kfac.running import measured
from tests.kfac.running import mlp
from tests.kfac.running import value

pytestmark = pytest.mark.eager


def registered(model, x, limit=10**6):
    variables = model.trainable_variables
    positions = {id(v): i for i, v in enumerate(variables)}
    return register(model, x, positions, variables, limit)[0]


def covered(model, registration):
    paths = [v.path for v in model.trainable_variables]
    return {paths[i] for b in registration.blocks for i in b.variables}


def functional(function, shape):
    inputs = keras.Input(shape)
    return keras.Model(inputs, function(inputs))


def test_nested_models_are_read():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3)], name="in")
    model = functional(lambda x: layers.Dense(2)(inner(x)), (4,))
    registration = registered(model, array(0, 2, 4))
    assert len(covered(model, registration)) == 4


def test_attention_is_four_einsum_products():
    attention = layers.MultiHeadAttention(2, 3)
    model = functional(lambda x: attention(x, x), (5, 4))
    registration = registered(model, array(0, 2, 5, 4))
    assert [b.layer for b in registration.blocks] == ["EinsumDense"] * 4
    assert not registration.reasons


def test_subclassed_model_is_read():
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.stack = [layers.Dense(3), layers.Dense(2)]

        def call(self, x):
            for layer in self.stack:
                x = layer(x)
            return x

    model = Net()
    model(array(0, 2, 4))
    assert len(registered(model, array(0, 2, 4)).blocks) == 2


def test_shared_layer_sums_over_its_uses():
    dense = layers.Dense(3, name="shared")
    model = functional(lambda x: dense(dense(x)), (3,))
    x = array(0, 4, 3)
    (found,) = measured(model, x, estimator="gauss_newton_exact").values()
    kernel, bias = (
        ops.convert_to_numpy(v.value).astype("float64")
        for v in model.trainable_variables
    )
    first = np.concatenate([x, np.ones((4, 1))], axis=1)
    second = np.concatenate([x @ kernel + bias, np.ones((4, 1))], axis=1)
    rows = np.concatenate([first, second])
    np.testing.assert_allclose(
        found["input_factor"], rows.T @ rows / 8, rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(
        found["output_factor"], np.eye(3) + kernel @ kernel.T, rtol=1e-4
    )


def test_frozen_layer_has_no_block():
    model = mlp(4, 3)
    model.layers[0].trainable = False
    registration = registered(model, array(0, 2, 3))
    assert covered(model, registration) == {"net/d1/kernel", "net/d1/bias"}


@pytest.mark.parametrize(
    "build, reason",
    [
        (lambda x: layers.TimeDistributed(layers.Dense(2))(x), "inside a loop"),
        (lambda x: layers.SimpleRNN(2)(x), "no known kind"),
        (lambda x: OwnDense(2)(x), "no known kind"),
        (lambda x: layers.Conv1DTranspose(2, 2)(x), "no known kind"),
    ],
    ids=["time distributed", "recurrent", "own call", "transposed"],
)
def test_what_has_no_block_has_a_reason(build, reason):
    model = functional(
        lambda x: layers.Dense(1)(layers.Flatten()(build(x))), (3, 4)
    )
    registration = registered(model, array(0, 2, 3, 4))
    assert [b.layer for b in registration.blocks] == ["Dense"]
    assert registration.reasons
    assert all(reason in text for text in registration.reasons.values())


@keras.saving.register_keras_serializable("tests")
class OwnDense(layers.Dense):
    def call(self, inputs):
        return super().call(inputs) ** 2


def tied(**arguments):
    """Two layers with one kernel and one bias, one after the other."""
    one, two = layers.Dense(3, "tanh"), layers.Dense(3, **arguments)
    model = functional(lambda x: two(one(x)), (3,))
    # Keras ties weights in layers written for it; here one takes another's.
    vars(two)["_kernel"] = one.kernel
    vars(two)["bias"] = one.bias
    return keras.Model(model.input, model.output)


def test_layers_that_do_the_same_with_one_kernel_share_a_block():
    model, x = tied(), array(0, 4, 3)
    (found,) = measured(model, x, estimator="gauss_newton_exact").values()
    own = model.layers[1]
    kernel, bias = map(value, (own.kernel, own.bias))
    inner = np.tanh(x @ kernel + bias)
    rows = np.concatenate([x, inner]).astype("float64")
    rows = np.concatenate([rows, np.ones((8, 1))], axis=1)
    np.testing.assert_allclose(
        found["input_factor"], rows.T @ rows / 8, rtol=1e-5, atol=1e-6
    )
    back = np.array([np.diag(1 - h**2) @ kernel for h in inner])
    expected = np.eye(3) + np.einsum("nij,nkj->ik", back, back) / 4
    np.testing.assert_allclose(
        found["output_factor"], expected, rtol=1e-5, atol=1e-6
    )


def test_variable_of_layers_that_differ_has_no_block():
    model = tied(use_bias=False)
    model = functional(lambda x: layers.Dense(1)(model(x)), (3,))
    registration = registered(model, array(0, 2, 3))
    assert [b.layer for b in registration.blocks] == ["Dense"]
    reasons = set(registration.reasons.values())
    assert "several layers that differ share it" in reasons


def test_layer_with_lora_takes_the_plain_gradient_and_says_so():
    model = mlp(4, 3)
    model.layers[0].enable_lora(2)
    registration = registered(model, array(0, 2, 3))
    assert {b.name for b in registration.blocks} == {"net/d1/kernel"}
    reasons = set(registration.reasons.values())
    assert reasons == {"its Dense is adapted by LoRA"}


def test_a_step_of_variables_without_blocks_alone():
    model = mlp(4, 3)
    model.layers[0].enable_lora(2)
    optimizer = KFAC(0.5, momentum=0.0, seed=0)
    model.compile(optimizer, "mse", jit_compile=False)
    optimizer.update_curvature(model, array(0, 2, 3))
    plain = next(v for v in model.trainable_variables if "lora" in v.path)
    before = value(plain)
    optimizer.apply([ops.ones(plain.shape)], [plain])
    np.testing.assert_allclose(value(plain), before - 0.5, rtol=1e-6)


def test_nothing_known_is_an_error():
    model = functional(lambda x: layers.Conv1DTranspose(2, 2)(x), (3, 4))
    with pytest.raises(ValueError, match="must have a layer that K-FAC knows"):
        registered(model, array(0, 2, 3, 4))


def test_large_factors_become_diagonals():
    model, x = mlp(6, 2), array(0, 5, 3)
    full = measured(model, x, estimator="gauss_newton_exact")
    thin = measured(model, x, estimator="gauss_newton_exact", max_factor_size=4)
    first = thin["net/d0/kernel"]
    assert first["input_factor"].shape == (4, 4)
    np.testing.assert_allclose(
        first["output_factor"],
        np.diag(full["net/d0/kernel"]["output_factor"]),
        rtol=1e-5,
    )


def test_registration_survives_its_config():
    attention = layers.MultiHeadAttention(2, 3)
    model = functional(
        lambda x: layers.LayerNormalization()(attention(x, x)), (5, 4)
    )
    registration = registered(model, array(0, 2, 5, 4))
    text = keras.saving.serialize_keras_object(registration.get_config())
    again = Registration.from_config(
        keras.saving.deserialize_keras_object(text)
    )
    assert again == registration


def test_report_of_a_residual_network():
    def network(x):
        x = layers.Conv2D(4, 3, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization()(x)
        y = layers.ReLU()(x)
        y = layers.Conv2D(4, 3, padding="same", use_bias=False)(y)
        x = layers.Add()([x, layers.BatchNormalization()(y)])
        x = layers.GlobalAveragePooling2D()(x)
        return layers.Dense(2)(x)

    model = functional(network, (6, 6, 1))
    model.compile(KFAC(0.1, estimator="gauss_newton"))
    model.optimizer.register(model, array(0, 2, 6, 6, 1))
    lines = []
    model.optimizer.summary(lines.append)
    text = lines[0]
    assert "input_factor 36x36, output_factor 4x4" in text
    assert text.count("ScaleShiftBlock (BatchNormalization)") == 2
    assert "plain gradient" not in text
    # Two floats per entry of A and S: kernels, the dense layer, the norms.
    size = 8 * (81 + 16 + 36**2 + 16 + 25 + 4 + 12 + 12)
    assert f"total: {size / 1024:.4g} KiB" in text


def test_report_of_a_transformer():
    def network(ids):
        x = layers.Embedding(7, 4)(ids)
        y = layers.MultiHeadAttention(2, 2)(x, x)
        x = layers.LayerNormalization()(x + y)
        x = layers.Dense(4, activation="gelu")(x)
        x = layers.Conv1DTranspose(4, 1)(x)
        return layers.Dense(3)(x)

    inputs = keras.Input((5,), dtype="int32")
    model = keras.Model(inputs, network(inputs))
    model.compile(KFAC(0.1, estimator="gauss_newton"))
    ids = np.random.default_rng(0).integers(0, 7, (2, 5))
    model.optimizer.register(model, ids)
    lines = []
    model.optimizer.summary(lines.append)
    text = lines[0]
    assert text.count("KroneckerBlock (EinsumDense)") == 4
    assert "KroneckerBlock (Embedding)" in text
    assert "input_factor 7, output_factor 4x4" in text
    assert text.count("plain gradient") == 2


def test_another_model_is_refused():
    optimizer = KFAC(0.1, estimator="gauss_newton")
    x = array(0, 2, 3)
    optimizer.update_curvature(mlp(3), x)
    with pytest.raises(ValueError, match="must be the model whose variables"):
        optimizer.update_curvature(mlp(3), x)


def test_unbuilt_model_is_refused():
    model = keras.Sequential([layers.Dense(2)])
    with pytest.raises(ValueError, match="`model` must be built"):
        KFAC(0.1).update_curvature(model, array(0, 2, 3))


def test_layers_are_left_as_they_were():
    calls = [layers.Dense.call, layers.Conv2D.call, layers.RNN.call]
    model = mlp(3)
    measured(model, array(0, 2, 3), estimator="gauss_newton")
    assert calls == [layers.Dense.call, layers.Conv2D.call, layers.RNN.call]
    assert "call" not in vars(layers.Conv2D)
    assert model.layers[0].activation is keras.activations.linear


def test_blocks_say_their_memory():
    registration = registered(mlp(3), array(0, 2, 3))
    (block,) = registration.blocks
    assert isinstance(block, KroneckerBlock)
    assert block.memory == 8 * (16 + 9)


class Halved(keras.layers.Layer):
    """Half of what its kernel makes of the inputs."""

    def __init__(self, units, activation=None, **kwargs):
        super().__init__(**kwargs)
        self.units, self.bias = units, None
        self.activation = keras.activations.get(activation)

    def build(self, shape):
        self.kernel = self.add_weight(
            shape=(shape[-1], self.units), name="kernel"
        )

    def call(self, inputs):
        outputs = keras.ops.matmul(inputs, self.kernel) / 2
        return self.activation(outputs)


class HalvedReader(kfac.DenseReader):
    def input_rows(self, layer, packing, inputs, dtype):
        return super().input_rows(layer, packing, inputs, dtype) / 2


def test_a_layer_of_ones_own(monkeypatch):
    monkeypatch.setattr(interception, "READERS", dict(interception.READERS))
    x = np.random.default_rng(0).normal(size=(16, 3)).astype("float32")
    kfac.register_layer(Halved, HalvedReader())
    found = []
    for first in (
        Halved(4, "tanh"),
        layers.Dense(4, "tanh", use_bias=False),
    ):
        model = keras.Sequential([keras.Input((3,)), first, layers.Dense(2)])
        scale = 2.0 if isinstance(first, Halved) else 1.0
        kernel = np.linspace(-1, 1, 12, dtype="float32").reshape(3, 4)
        first.kernel.assign(scale * kernel)
        model.layers[1].kernel.assign(kernel[:, :2].repeat(2, axis=0)[:4])
        model.compile(
            optimizers.KFAC(0.1, estimator="gauss_newton_exact"), "mse"
        )
        model.optimizer.update_curvature(model, x)
        found.append(model.optimizer.factors()[first.kernel.path])
    np.testing.assert_allclose(
        4 * found[0]["input_factor"], found[1]["input_factor"], rtol=1e-5
    )
    np.testing.assert_allclose(
        found[0]["output_factor"], found[1]["output_factor"], rtol=1e-5
    )


@pytest.mark.parametrize(
    "kind, reader, message",
    [
        (3, kfac.DenseReader(), "`kind` must be a class of Keras layers"),
        (Halved, HalvedReader, "`reader` must be an instance"),
        (
            type("Inherited", (layers.Dense,), {}),
            kfac.DenseReader(),
            "`kind` must define a `call` of its own",
        ),
    ],
)
def test_what_cannot_be_registered(kind, reader, message):
    with pytest.raises(ValueError, match=message):
        kfac.register_layer(kind, reader)
