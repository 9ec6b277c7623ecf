"""Every layer kind: the rows it shows spell the gradient autodiff finds.

If the gradient of a layer, packed, is the sum of (input row) x (output row),
then the rows, their order, and the packing of kernel and bias all agree.
"""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

from keras_wd.backend import autodiff
from keras_wd.kfac.interception import intercepted
from keras_wd.kfac.registration import register
from keras_wd.kfac.registration import run_model
from tests import catalogue
from tests.kfac import reference
from tests.kfac.running import array
from tests.kfac.running import gradient
from tests.kfac.running import measured
from tests.kfac.running import value

pytestmark = pytest.mark.eager

CONVOLUTIONS = {
    "conv1d valid": (layers.Conv1D(3, 2), (7, 2)),
    "conv1d causal": (
        layers.Conv1D(3, 3, padding="causal", dilation_rate=2),
        (7, 2),
    ),
    "conv1d grouped": (layers.Conv1D(4, 2, groups=2), (5, 4)),
    "conv2d valid": (layers.Conv2D(3, (2, 3)), (5, 6, 2)),
    "conv2d same": (layers.Conv2D(3, (3, 2), padding="same"), (5, 6, 2)),
    "conv2d strided": (layers.Conv2D(2, 3, strides=(2, 1)), (7, 6, 2)),
    "conv2d strided same": (
        layers.Conv2D(2, 3, strides=2, padding="same"),
        (6, 7, 2),
    ),
    "conv2d stride beyond kernel": (
        layers.Conv2D(2, 1, strides=3, padding="same"),
        (7, 7, 2),
    ),
    "conv2d dilated": (layers.Conv2D(2, 2, dilation_rate=(2, 3)), (6, 7, 2)),
    "conv2d dilated same": (
        layers.Conv2D(2, 3, dilation_rate=2, padding="same"),
        (6, 7, 2),
    ),
    "conv2d grouped": (layers.Conv2D(6, 2, groups=2), (4, 4, 4)),
    "conv2d no bias": (layers.Conv2D(2, 2, use_bias=False), (4, 4, 2)),
    "conv3d": (layers.Conv3D(2, 2, padding="same", strides=2), (4, 3, 4, 2)),
    "depthwise1d": (layers.DepthwiseConv1D(2, depth_multiplier=2), (5, 3)),
    "depthwise2d": (
        layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same"),
        (5, 4, 3),
    ),
    "depthwise2d strided": (
        layers.DepthwiseConv2D(2, strides=2, use_bias=False),
        (5, 5, 3),
    ),
    "depthwise2d one channel": (layers.DepthwiseConv2D(2), (5, 5, 1)),
}
MATRICES = {
    "dense": (layers.Dense(3), (4,)),
    "dense no bias": (layers.Dense(3, use_bias=False), (4,)),
    "dense on a sequence": (layers.Dense(3), (5, 4)),
    "dense one output": (layers.Dense(1), (4,)),
    "einsum heads": (
        layers.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="de"),
        (5, 4),
    ),
    "einsum join heads": (
        layers.EinsumDense("abcd,cde->abe", (None, 3), bias_axes="e"),
        (5, 2, 3),
    ),
    "einsum ellipsis": (
        layers.EinsumDense("...x,xy->...y", 3, bias_axes="y"),
        (5, 4),
    ),
    "einsum groups": (
        layers.EinsumDense("abc,bcd->abd", (3, 2), bias_axes="bd"),
        (3, 4),
    ),
    "einsum kernel turned": (layers.EinsumDense("ab,cb->ac", (3,)), (4,)),
    "einsum other bias": (
        layers.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="e"),
        (5, 4),
    ),
}


def model_of(layer, shape):
    config = {**layer.get_config(), "name": "it"}
    # Values are set below; drawing them takes JAX seconds to compile.
    for name in ("kernel", "depthwise", "embeddings"):
        if f"{name}_initializer" in config:
            config[f"{name}_initializer"] = "zeros"
    layer = type(layer).from_config(config)
    model = keras.Sequential([keras.Input(shape), layer])
    for seed, variable in enumerate(model.trainable_variables):
        variable.assign(array(seed, *variable.shape))
    return model


QUICK = (
    *("conv1d grouped", "conv2d strided same", "conv2d dilated", "conv3d"),
    *("depthwise2d", "dense", "dense on a sequence", "einsum heads"),
    *("einsum groups", "einsum kernel turned"),
)


@pytest.mark.few_cases(3)
@pytest.mark.compiled
@pytest.mark.parametrize(
    "case", catalogue.quick({**CONVOLUTIONS, **MATRICES}, *QUICK)
)
def test_rows_spell_the_gradient(case):
    layer, shape = case
    model, x = model_of(layer, shape), array(9, 2, *shape)
    positions = {id(v): i for i, v in enumerate(model.trainable_variables)}
    registration, (seen,), _ = register(
        model, x, positions, model.trainable_variables, 10**6
    )
    (block,) = registration.blocks

    def forward(tap):
        kept = []

        def observe(layer, reader, call, inputs, in_loop):
            outputs, inputs = reader.run(layer, call, inputs, tap)
            kept.append(inputs)
            return outputs

        with intercepted(observe):
            return keras.tree.flatten(run_model(model, x)), kept

    packing, reader = block.packing, seen.reader
    noise = array(8, 1000)

    def shown():
        outputs, (inputs,), pullback = autodiff.tapped_vjp(forward)
        shape.extend(outputs[0].shape)
        cotangent = ops.reshape(noise[: np.prod(shape)], shape)
        (taken,) = pullback([cotangent])
        return [
            reader.input_rows(seen.layer, packing, inputs, "float32"),
            reader.output_rows(seen.layer, packing, taken, "float32"),
        ]

    shape = []
    program = autodiff.compiled(shown, model.variables, [], jit_compile=False)
    rows, grads = map(ops.convert_to_numpy, program())
    cotangent = noise[: np.prod(shape)].reshape(shape)
    if packing.bias is not None:
        ones = np.ones((*rows.shape[:-1], 1))
        rows = np.concatenate([rows, ones], axis=-1)
    spelled = np.einsum("r...n,r...m->...nm", rows, grads)
    found = gradient(model, x, cotangent)
    own = [model.trainable_variables[i].path for i in block.variables]
    expected = packing.pack(*(found[path] for path in own))
    np.testing.assert_allclose(
        spelled, ops.convert_to_numpy(expected), rtol=1e-4, atol=1e-4
    )
    # And unpacking undoes packing.
    for path, part in zip(own, packing.unpack(expected), strict=True):
        np.testing.assert_array_equal(
            ops.convert_to_numpy(part), ops.convert_to_numpy(found[path])
        )


@pytest.mark.parametrize(
    "case",
    catalogue.quick(
        {k: v for k, v in CONVOLUTIONS.items() if "grouped" not in k}, *QUICK
    ),
)
def test_convolution_input_factor_is_the_brute_force_patch_sum(case):
    layer, shape = case
    model, x = model_of(layer, shape), array(9, 2, *shape)
    y = np.zeros(model(x).shape, "float32")
    factors = measured(model, x, y, loss="mse", estimator="empirical")
    (found,) = factors.values()
    rows = reference.patches(
        x.astype("float64"),
        layer.kernel_size,
        layer.strides,
        layer.padding,
        layer.dilation_rate,
    )
    if "Depthwise" in type(layer).__name__:
        per_channel = []
        for channel in range(rows.shape[-1]):
            own = rows[:, :, channel]
            if layer.use_bias:
                own = reference.with_ones(own)
            per_channel.append(own.T @ own / len(own))
        expected = np.squeeze(np.array(per_channel))
    else:
        rows = rows.reshape(len(rows), -1)
        if layer.use_bias:
            rows = reference.with_ones(rows)
        expected = rows.T @ rows / len(rows)
    np.testing.assert_allclose(
        found["input_factor"], expected, rtol=1e-5, atol=1e-5
    )


def _sum_of_squares(y_true, y_pred):
    return ops.sum(ops.square(y_true - y_pred), axis=-1)


@pytest.mark.slow(reason="two networks, measured")
@pytest.mark.compiled
@pytest.mark.parametrize(
    "kind", catalogue.quick(["conv", "grouped", "depthwise"], "conv")
)
def test_channels_first_has_the_factors_of_channels_last(kind):
    make = {
        "conv": lambda f: layers.Conv2D(4, 2, strides=2, data_format=f),
        "grouped": lambda f: layers.Conv2D(4, 2, groups=2, data_format=f),
        "depthwise": lambda f: layers.DepthwiseConv2D(2, data_format=f),
    }[kind]
    last = model_of(make("channels_last"), (5, 6, 2))
    first = model_of(make("channels_first"), (2, 5, 6))
    x = array(3, 2, 5, 6, 2)
    # Without XLA, TensorFlow has no channels-first convolution on CPU.
    first.jit_compile = last.jit_compile = True
    y = array(4, *last(x).shape)
    found = [
        measured(model, x, y, loss=_sum_of_squares, estimator="empirical")
        for model, x, y in (
            (last, x, y),
            (first, np.moveaxis(x, -1, 1), np.moveaxis(y, -1, 1)),
        )
    ]
    (left,), (right,) = (factors.values() for factors in found)
    # Keras takes the mean over all axes but the last: places on one side,
    # channels and rows on the other.
    ratio = y.shape[-1] / y.shape[2]
    for name, scale in (("input_factor", 1.0), ("output_factor", ratio)):
        np.testing.assert_allclose(
            left[name], scale * right[name], rtol=1e-4, atol=1e-6
        )


def test_einsum_has_the_factors_of_the_dense_it_spells():
    dense = model_of(layers.Dense(6), (5, 4))
    einsum = model_of(
        layers.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="de"),
        (5, 4),
    )
    flat = keras.Sequential(
        [keras.Input((5, 4)), einsum, layers.Reshape((5, 6))]
    )
    for mine, other in zip(
        einsum.trainable_variables, dense.trainable_variables, strict=True
    ):
        mine.assign(value(other).reshape(mine.shape))
    x = array(5, 3, 5, 4)
    loss = keras.losses.MeanSquaredError()
    (left,) = measured(dense, x, loss=loss, estimator="fisher_exact").values()
    (right,) = measured(flat, x, loss=loss, estimator="fisher_exact").values()
    for name in ("input_factor", "output_factor"):
        np.testing.assert_allclose(left[name], right[name], rtol=1e-5)


def test_embedding_counts_its_rows():
    model = keras.Sequential([keras.Input((3,)), layers.Embedding(5, 2)])
    ids = np.array([[0, 1, 1], [4, 1, 0]])
    (found,) = measured(model, ids, estimator="gauss_newton_exact").values()
    np.testing.assert_allclose(
        found["input_factor"], np.array([2, 3, 0, 0, 1]) / 6, rtol=1e-6
    )
    np.testing.assert_allclose(found["output_factor"], np.eye(2), rtol=1e-6)


NORMALIZATIONS = {
    "batch": (layers.BatchNormalization(), (4,)),
    "batch channels first": (layers.BatchNormalization(axis=1), (3, 2, 2)),
    "batch images": (layers.BatchNormalization(), (2, 3, 4)),
    "batch shift": (layers.BatchNormalization(scale=False), (4,)),
    "layer": (layers.LayerNormalization(), (4,)),
    "layer two axes": (layers.LayerNormalization(axis=(1, 2)), (2, 3)),
    "layer scale": (layers.LayerNormalization(center=False), (2, 3)),
    "group": (layers.GroupNormalization(2), (3, 4)),
    "rms": (layers.RMSNormalization(), (2, 4)),
}


@pytest.mark.parametrize(
    "case",
    catalogue.quick(
        NORMALIZATIONS, "batch images", "layer two axes", "group", "rms"
    ),
)
def test_normalization_moments_are_those_of_the_jacobian(case):
    layer, shape = case
    inner = model_of(layer, shape)
    model = keras.Sequential(
        [keras.Input(shape), inner, layers.Flatten(), layers.Dense(2)]
    )
    model.layers[-1].trainable = False
    x = array(4, 5, *shape)
    (found,) = measured(model, x, estimator="gauss_newton_exact").values()
    # Outputs are linear in scale and shift: differences are exact.
    jacobian = [
        j.reshape(5, 2, -1) for j in reference.jacobians(model, x).values()
    ]
    expected = [np.sum(j * j, axis=(0, 1)) / 5 for j in jacobian]
    if len(jacobian) == 2:
        product = jacobian[0] * jacobian[1]
        expected.append(np.sum(product, axis=(0, 1)) / 5)
    np.testing.assert_allclose(
        found["unit_factor"], np.array(expected), rtol=1e-3, atol=1e-4
    )
