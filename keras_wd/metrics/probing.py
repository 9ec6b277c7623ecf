"""What measurements on examples share: checked inputs, programs, batches."""

import contextlib
import math
import threading
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_wd.backend import autodiff
from keras_wd.kfac.batch_tensors import is_wide

_PROGRAMS = "_keras_wd_programs"
_OUTPUT_SHAPES = "_keras_wd_output_shapes"
# An embedding's `call` is replaced for the time of a forward pass.
_LOCK = threading.RLock()


def checked_inputs(model: keras.Model, x, floats: bool = True):
    """`x` as NumPy arrays that the model takes.

    Args:
        model: a Keras model.
        x: inputs as `predict` takes them: an array, or a list, tuple or dict.
        floats: refuse inputs that nothing can be differentiated by: integers
            that no `Embedding` of the model looks up.

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
    wide = is_wide(model)
    inputs = keras.tree.map_structure(lambda part: _array(part, wide), x)
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
    _check_shapes(model, inputs)
    for array in arrays:
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            bad = int(np.count_nonzero(~np.isfinite(array)))
            raise ValueError(
                f"`x` must be finite. Received: x with {bad} entries that are "
                "NaN or infinite."
            )
    kinds = {array.dtype.kind for array in arrays}
    if floats and "f" not in kinds and not _traced(model, inputs)[1]:
        found = " and ".join(str(array.dtype) for array in arrays)
        raise ValueError(
            "`x` must be arrays of floats, because the outputs are "
            "differentiated by them, or ids that an `Embedding` looks up. "
            f"Received: x of {found}. Scale images to float32 as the model "
            "expects them."
        )
    return inputs


def _array(x, wide):
    array = ops.convert_to_numpy(x) if ops.is_tensor(x) else np.asarray(x)
    if array.dtype.kind == "f" and not (wide and array.dtype == "float64"):
        return array.astype(keras.config.floatx())
    return array


def _shapes(arrays):
    return "shape " + " and ".join(str(array.shape) for array in arrays)


def _check_shapes(model, inputs):
    try:
        tensors = list(model.inputs)
    except (AttributeError, TypeError):
        return  # A subclassed model does not say.
    if isinstance(inputs, dict) and not isinstance(model.input, dict):
        # Keras finds them by name, whatever order the model lists them in.
        names = [tensor.name for tensor in tensors]
        if set(names) <= set(inputs):
            inputs = [inputs[name] for name in names]
    arrays = keras.tree.flatten(inputs)
    wanted = [tuple(tensor.shape)[1:] for tensor in tensors]
    found = [array.shape[1:] for array in arrays]
    fits = len(wanted) == len(found) and all(
        _fits(want, shape) for want, shape in zip(wanted, found, strict=True)
    )
    if not fits:
        examples = " and ".join(map(str, wanted))
        raise ValueError(
            f"`x` must have examples of shape {examples}. Received: x of "
            f"{_shapes(arrays)}."
        )


def _fits(want, shape):
    if len(want) == len(shape) + 1 and want[-1] == 1:
        want = want[:-1]  # Keras adds the last axis.
    return len(want) == len(shape) and all(
        w is None or w == s for w, s in zip(want, shape, strict=True)
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
    shapes = _traced(model, inputs)[0]
    if len(shapes) != 1:
        raise ValueError(
            "`model` must have one output. Received: "
            f"model={model.name!r} with {len(shapes)}. Make a "
            "`keras.Model` of the one to be measured."
        )
    return shapes[0]


def output_sizes(model: keras.Model, inputs) -> list[int]:
    """How many numbers every output of floats has for one example."""
    return [math.prod(shape) for shape in _traced(model, inputs)[0]]


def _traced(model, inputs) -> tuple[list, int]:
    """The shapes of the outputs of one example, and how often ids are read."""
    # Not through the model's attributes, which Keras would track.
    known = vars(model).setdefault(_OUTPUT_SHAPES, {})
    arrays = keras.tree.flatten(inputs)
    key = (_identity(model.variables), *(a.shape[1:] for a in arrays))
    if key not in known:
        shapes, lookups = [], []

        def tap(tensor):
            lookups.append(tensor.shape)
            return tensor

        def read():
            example = keras.tree.map_structure(
                lambda array: ops.convert_to_tensor(array[:1]), inputs
            )
            outputs = tapped_outputs(model, example, tap)
            shapes.extend(tuple(output.shape)[1:] for output in outputs)
            # The floats themselves are tapped too.
            floats = sum(array.dtype.kind == "f" for array in arrays)
            del lookups[:floats]

        # Run eagerly, JAX would compile each operation of the model.
        autodiff.traced(read)
        known[key] = (shapes, len(lookups))
    return known[key]


def tapped_outputs(model: keras.Model, batch, tap: Callable) -> list:
    """The outputs of floats at inference, flattened.

    Args:
        model: the model.
        batch: of inputs.
        tap: called with what the outputs are differentiated by, the inputs of
            floats and then the vectors that an `Embedding` looks up for the
            others; returns what to go on with.
    """
    flat = keras.tree.flatten(batch)
    rank = min(len(tensor.shape) for tensor in flat)

    def tap_floats(tensor):
        return tap(tensor) if _is_float(tensor) else tensor

    tapped = keras.tree.map_structure(tap_floats, batch)
    with _lookups_tapped(model, tap, (flat[0].shape[0], rank)):
        outputs = keras.tree.flatten(model(tapped, training=False))
    return [output for output in outputs if _is_float(output)]


def _is_float(tensor):
    return "float" in keras.backend.standardize_dtype(tensor.dtype)


@contextlib.contextmanager
def _lookups_tapped(model, tap, examples_and_rank):
    """While this lasts, what embeddings look up passes through `tap`."""
    examples, rank = examples_and_rank

    def tapped(original):
        def call(*args, **kwargs):
            outputs = original(*args, **kwargs)
            ids = args[0] if args else kwargs.get("inputs")
            # Positions are counted, not given: they have no examples. Run in
            # reverse, an embedding makes outputs of the rank of its inputs.
            given = len(ids.shape) >= rank and ids.shape[0] == examples
            looked_up = len(outputs.shape) == len(ids.shape) + 1
            return tap(outputs) if given and looked_up else outputs

        return call

    embeddings = {
        id(layer): layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.Embedding)
    }
    with _LOCK, contextlib.ExitStack() as undo:
        for layer in embeddings.values():
            # Not through its attributes, which Keras would track.
            vars(layer)["call"] = tapped(layer.call)
            undo.callback(vars(layer).pop, "call")
        yield


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
        and autodiff.xla_pays_for_few_runs()
    )
    key = (name, jit_compile, _identity(model.variables))
    if key not in programs:
        programs[key] = autodiff.compiled(
            make(), reads=model.variables, writes=[], jit_compile=jit_compile
        )
    return programs[key]


def _identity(variables: Sequence[keras.Variable]):
    return tuple(id(variable) for variable in variables)
