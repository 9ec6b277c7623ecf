import keras
import numpy as np
import pytest

from keras_wd.cli import networks
from keras_wd.cli.networks import Design

SHAPES = [(8, 8, 1), (32, 32, 3), (17, 9, 2)]
KERNELS = {"mlp": 3, "cnn": 6, "vgg16": 14, "resnet32": 34}


def _conv(size, fan_in, channels):
    return size * size * fan_in * channels + channels


def _resnet32_parameters():
    count = _conv(3, 3, 64) + 256 * 10 + 10
    width = 64
    for channels in (64, 128, 256):
        for _ in range(5):
            count += _conv(3, width, channels) + _conv(3, channels, channels)
            if width != channels:
                count += _conv(1, width, channels)
            width = channels
    return count


def _vgg16_parameters():
    widths = [3, 64, 64, 128, 128, 256, 256, 256] + [512] * 6
    pairs = zip(widths, widths[1:], strict=False)
    return sum(_conv(3, a, b) for a, b in pairs) + 512 * 10 + 10


@pytest.mark.few_cases(3)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", networks.NETWORKS)
def test_any_image_size_gives_logits(name, shape):
    model = networks.build(name, shape, classes=5)
    assert model.output_shape == (None, 5)
    assert model.layers[-1].activation is keras.activations.linear
    kernels = [v for v in model.trainable_variables if len(v.shape) > 1]
    assert len(kernels) == KERNELS[name]


def test_a_network_maps_images_to_finite_logits():
    model = networks.build("resnet32", (8, 8, 1), 5, Design(batch_norm=True))
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 1))
    logits = keras.ops.convert_to_numpy(model(images.astype("float32")))
    assert logits.shape == (2, 5)
    assert np.isfinite(logits).all()


@pytest.mark.parametrize(
    "name, parameters",
    [
        ("mlp", 3072 * 256 + 256 + 256 * 256 + 256 + 2560 + 10),
        ("vgg16", _vgg16_parameters()),
        ("resnet32", _resnet32_parameters()),
    ],
)
def test_parameter_counts_on_cifar10(name, parameters):
    model = networks.build(name, (32, 32, 3), 10)
    assert model.count_params() == parameters


@pytest.mark.few_cases(3)
@pytest.mark.parametrize("name", networks.NETWORKS)
def test_batch_norm_follows_every_hidden_layer_without_scale(name):
    plain = networks.build(name, (8, 8, 1), 10)
    model = networks.build(name, (8, 8, 1), 10, Design(batch_norm=True))
    norms = [
        layer
        for layer in model.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert len(norms) == KERNELS[name] - 1
    assert not any(layer.trainable_variables for layer in norms)
    assert len(model.trainable_variables) == len(plain.trainable_variables)


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_without_bias_there_are_kernels_alone(name):
    model = networks.build(name, (8, 8, 1), 10, Design(bias=False))
    names = {v.path.split("/")[-1] for v in model.trainable_variables}
    assert names == {"kernel"}


def test_hidden_units_are_the_widths_of_the_mlp():
    model = networks.build("mlp", (8, 8, 1), 10, Design(hidden_units=(5, 3)))
    shapes = [tuple(v.shape) for v in model.trainable_variables]
    assert shapes[::2] == [(64, 5), (5, 3), (3, 10)]


def test_initial_weights_are_uniform_with_the_fan_average_variance():
    keras.utils.set_random_seed(0)
    model = networks.build("mlp", (32, 32, 3), 10)
    kernel = np.asarray(model.trainable_variables[0])
    bound = np.sqrt(6 / (3072 + 256))
    assert bound * 0.999 < abs(kernel).max() < bound * 1.0001
    np.testing.assert_allclose(kernel.var(), bound**2 / 3, rtol=0.01)
