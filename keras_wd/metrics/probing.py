"""What measurements on examples share: checked inputs, programs, batches."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_wd.backend import curvature as seam

_PROGRAMS = "_keras_wd_programs"
_OUTPUT_SHAPES = "_keras_wd_output_shapes"


def checked_inputs(model: keras.Model, x, floats: bool = True):
    """`x` as NumPy arrays that the model takes.

    Args:
        model: a Keras model.
        x: inputs as `predict` takes them: an array, or a list, tuple or dict.
        floats: refuse integers, which nothing can be differentiated by.

    Raises:
        ValueError: if the model is not built, or `x` is empty, of the wrong
            shape, not finite, or not of floats.
    """
    if not isinstance(model, keras.Model) or not model.built:
        raise ValueError(
            "`model` must be a built Keras model. Received: "
            f"model={getattr(model, 'name', model)!r}, which is not. Call it "
            "on a batch first, or give it an `Input`."
        )
    inputs = keras.tree.map_structure(_array, x)
    arrays = keras.tree.flatten(inputs)
    if not arrays or any(a.ndim == 0 or len(a) == 0 for a in arrays):
        raise ValueError(
            "`x` must hold at least one example. Received: x of "
            f"{_shapes(arrays)}."
        )
    if len({len(array) for array in arrays}) > 1:
        raise ValueError(
            "`x` must have as many examples in every input. Received: x of "
            f"{_shapes(arrays)}."
        )
    _check_shapes(model, arrays)
    for array in arrays:
        if array.dtype.kind != "f":
            if floats:
                raise ValueError(
                    "`x` must be arrays of floats, because the outputs are "
                    f"differentiated by them. Received: x of {array.dtype}. "
                    "Scale images to float32 as the model expects them."
                )
        elif not np.isfinite(array).all():
            bad = int(np.count_nonzero(~np.isfinite(array)))
            raise ValueError(
                f"`x` must be finite. Received: x with {bad} entries that are "
                "NaN or infinite."
            )
    return inputs


def _array(x):
    array = ops.convert_to_numpy(x) if ops.is_tensor(x) else np.asarray(x)
    if array.dtype.kind == "f":
        return array.astype(keras.config.floatx())
    return array


def _shapes(arrays):
    return "shape " + " and ".join(str(array.shape) for array in arrays)


def _check_shapes(model, arrays):
    try:
        wanted = [tuple(tensor.shape)[1:] for tensor in model.inputs]
    except AttributeError:
        return  # A subclassed model does not say.
    found = [array.shape[1:] for array in arrays]
    fits = len(wanted) == len(found) and all(
        len(want) == len(shape)
        and all(w is None or w == s for w, s in zip(want, shape, strict=True))
        for want, shape in zip(wanted, found, strict=True)
    )
    if not fits:
        examples = " and ".join(map(str, wanted))
        raise ValueError(
            f"`x` must have examples of shape {examples}. Received: x of "
            f"{_shapes(arrays)}."
        )


def count_examples(inputs) -> int:
    """How many examples checked inputs hold."""
    return len(keras.tree.flatten(inputs)[0])


def batches_of(inputs, batch_size: int) -> Iterator:
    """Checked inputs in batches, as tensors."""
    for start in range(0, count_examples(inputs), batch_size):
        yield keras.tree.map_structure(
            lambda array, start=start: ops.convert_to_tensor(
                array[start : start + batch_size]
            ),
            inputs,
        )


def output_shape(model: keras.Model, inputs) -> tuple[int, ...]:
    """The shape of the model's only output for one example.

    Raises:
        ValueError: if there are several outputs.
    """
    # Not through the model's attributes, which Keras would track.
    known = vars(model).setdefault(_OUTPUT_SHAPES, {})
    examples = [a.shape[1:] for a in keras.tree.flatten(inputs)]
    key = (_identity(model.variables), *examples)
    if key not in known:
        known[key] = _traced_output_shape(model, inputs)
    return known[key]


def _traced_output_shape(model, inputs):
    shapes = []

    def read():
        example = keras.tree.map_structure(
            lambda array: ops.convert_to_tensor(array[:1]), inputs
        )
        outputs = keras.tree.flatten(model(example, training=False))
        shapes.extend(tuple(output.shape)[1:] for output in outputs)

    # Run eagerly, JAX would compile each operation of the model.
    seam.traced(read)
    if len(shapes) != 1:
        raise ValueError(
            "`model` must have one output. Received: "
            f"model={model.name!r} with {len(shapes)}. Make a "
            "`keras.Model` of the one to be measured."
        )
    return shapes[0]


def program_of(model: keras.Model, name: str, make: Callable) -> Callable:
    """A compiled program of a model, kept with it until its weights change.

    Args:
        model: whose variables the program reads.
        name: of the measurement.
        make: returns the function to compile. XLA is used as in the model's
            own `jit_compile`, but not by TensorFlow on a CPU, and always on
            JAX.
    """
    programs = vars(model).setdefault(_PROGRAMS, {})
    jit_compile = (
        bool(getattr(model, "jit_compile", False))
        and seam.xla_pays_for_few_runs()
    )
    key = (name, jit_compile, _identity(model.variables))
    if key not in programs:
        programs[key] = seam.compiled(
            make(), reads=model.variables, writes=[], jit_compile=jit_compile
        )
    return programs[key]


def _identity(variables: Sequence[keras.Variable]):
    return tuple(id(variable) for variable in variables)
