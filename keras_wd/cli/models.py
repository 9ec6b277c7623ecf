"""The model of a run: a network of ours or the user's own file."""

from collections.abc import Mapping

import keras
from keras import layers

from keras_wd.cli import networks
from keras_wd.cli import saved_models
from keras_wd.cli.datasets import DataSet
from keras_wd.cli.rate_schedules import numbers
from keras_wd.cli.usage_errors import UsageError
from keras_wd.cli.usage_errors import first_line

LONG = 1000  # steps
_DENSE_LAYERS = (
    layers.InputLayer,
    layers.Flatten,
    layers.Reshape,
    layers.Dense,
    layers.Activation,
    layers.ReLU,
    layers.LeakyReLU,
    layers.Softmax,
    layers.BatchNormalization,
    layers.LayerNormalization,
    layers.Dropout,
    layers.Rescaling,
    layers.Add,
)


def make(settings: Mapping, data: DataSet) -> keras.Model:
    """The model of `--model` for this data.

    One of the user's is compiled if it was when it was saved; others are not.

    Raises:
        UsageError: if it cannot be loaded or does not fit the data.
    """
    name = settings["model"]
    check(name, data)
    if networks.is_file(name):
        return _load(name, data)
    design = networks.Design(
        batch_norm=settings["batch_norm"],
        bias=settings["bias"],
        hidden_units=tuple(
            numbers("hidden_units", settings["hidden_units"], int, 1)
        ),
        fixed_norm=settings["kernel_constraint"] == "fixed_norm",
    )
    return networks.build(name, data.input_shape, data.classes or 1, design)


def check(name: str, data: DataSet) -> None:
    """What is known of `--model` before it is made.

    Raises:
        UsageError: if there is no such file, or it does not fit the data.
    """
    if networks.is_file(name):
        saved_models.check(name, f"--model={name}")
    elif name != "mlp" and not data.is_of_images:
        raise UsageError(
            f"--model={name} needs images, and {data.name} has rows of "
            f"{data.input_shape[0]} columns. Use --model=mlp"
        )


def _load(path, data):
    model = saved_models.load(path, f"--model={path}", compile=True)
    inputs = "images of" if data.is_of_images else "rows of"
    needed = [(f"take {inputs}", model.input_shape, (None, *data.input_shape))]
    if not model.compiled:
        what = "one number per class," if data.classes else "one number,"
        shape = (None, data.classes or 1)
        needed.append((f"give {what}", model.output_shape, shape))
    for what, has, needs in needed:
        if not _fits(has, needs):
            raise UsageError(
                f"--model={path} must {what} {_sizes(needs)} for "
                f"--dataset={data.name}; it has {_sizes(has)}"
            )
    if not model.trainable_variables:
        raise UsageError(f"--model={path} has no trainable weights")
    return model


def _fits(shape, needed):
    if not isinstance(shape, tuple) or len(shape) != len(needed):
        return False
    return all(
        a in (None, b) for a, b in zip(shape[1:], needed[1:], strict=True)
    )


def _sizes(shape):
    if isinstance(shape, tuple) and len(shape) > 1:
        return " x ".join(map(str, shape[1:]))
    return f"the shape {shape}"


def objective(model: keras.Model, data: DataSet) -> dict:
    """What `compile` is given: the loss and the metrics.

    Those a model was saved with; else cross-entropy of the labels, for logits
    or for a final softmax, or the mean squared error.
    """
    if model.compiled:
        own = model.get_compile_config() or {}
        names = ("loss", "loss_weights", "metrics", "weighted_metrics")
        stored = {name: own[name] for name in names if own.get(name)}
        return keras.saving.deserialize_keras_object(stored)
    if not data.classes:
        return {
            "loss": "mean_squared_error",
            "metrics": ["mean_absolute_error"],
        }
    last = model.layers[-1]
    softmax = isinstance(last, layers.Softmax) or (
        getattr(last, "activation", None) is keras.activations.softmax
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=not softmax)
    return {"loss": loss, "metrics": ["accuracy"]}


def check_objective(
    model: keras.Model, settings: Mapping, data: DataSet
) -> None:
    """Try the loss and the metrics a model is compiled with on two examples.

    This creates the variables of the metrics: TensorFlow traces a step again
    if they are created in it.

    Raises:
        UsageError: if those of a saved model do not take these targets.
    """
    few = data.train.take(slice(2))
    x = data.standardise(few.inputs)
    y = data.standardise_targets(few.targets)
    try:
        predictions = model(x)
        targets = keras.ops.convert_to_tensor(y)
        model.compute_loss(y=targets, y_pred=predictions)
        if settings["distribute"] == "none":
            model.compute_metrics(x, targets, predictions)
    except Exception as error:
        if not networks.is_file(settings["model"]):
            raise
        raise UsageError(
            f"--model={settings['model']} was compiled with a loss or metric "
            f"that does not take the targets of {data.name}, which have the "
            f"shape {y.shape[1:]} each: {first_line(error)}"
        ) from error


def jit_compile(model: keras.Model, choice: str, steps: int) -> bool | str:
    """What to pass to `compile` for `--jit`.

    Keras's own `"auto"` compiles on accelerators and with JAX; dense networks
    gain from it on a CPU as well, in a run long enough to earn back the seconds
    it takes.
    """
    if choice != "auto":
        return choice == "true"
    return True if is_dense(model) and steps >= LONG else "auto"


def is_dense(model: keras.Model) -> bool:
    """Whether the network multiplies by dense matrices alone."""
    return all(isinstance(layer, _DENSE_LAYERS) for layer in model.layers)
