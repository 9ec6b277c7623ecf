"""Can a smaller model be read from its file?

Keras makes the layers of a file again from what their `get_config` said. A
model whose class has a configuration of its own is saved by that alone, so
that nobody may have noticed that its layers cannot be. A smaller model is
saved by its layers, unless the configuration of its class can say how small
it is.
"""

import itertools
import json
import types
import warnings
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import keras

from keras_wd.graph import verify
from keras_wd.graph.calls_again import entrances
from keras_wd.graph.calls_again import example
from keras_wd.graph.configurations import changes
from keras_wd.graph.configurations import constructor_arguments
from keras_wd.graph.configurations import said_by
from keras_wd.graph.configurations import with_its_objects
from keras_wd.graph.copies import Copier
from keras_wd.graph.rebuild import take_settings
from keras_wd.graph.structure import functional_of
from keras_wd.graph.structure import nodes_of
from keras_wd.graph.structure import read

_TRIALS = 4
_LONGEST = 200
_UNCOMPARED = "it cannot be called on random inputs, to compare it"

# What a class says of a layer.
_Say = Callable[[keras.Layer], dict]


def savable(
    model: keras.Model,
    smaller: keras.Model,
    masked: keras.Model,
    x: object,
) -> keras.Model:
    """A smaller model as it can be saved, where that is possible.

    It has the class of the old one if the configuration of that can say how
    small it is; else its layers say what they can be made from. Warns if Keras
    could save the old one, and cannot read a file of the new one.

    Args:
        model: the old one.
        smaller: the new one.
        masked: the old one with units that were taken for dead made so.
        x: see `compact`.
    """
    if smaller is model:
        return model
    made = in_its_class(model, smaller, masked, x)
    if made is smaller:
        _mend_layers(smaller)
    refused = unreadable(made)
    if refused and not unreadable(model):
        warnings.warn(
            f"A file of the smaller model cannot be loaded. {refused[0]}. "
            "Keep its weights with `save_weights`, or export it.",
            stacklevel=3,
        )
    return made


def in_its_class(
    model: keras.Model, other: keras.Model, masked: keras.Model, x: object
) -> keras.Model:
    """`other`, of the class of `model` if that can be; see `savable`."""
    if type(other) is type(model):
        return other
    made = _of_its_class(model, other)
    if made is None:
        return other
    try:
        verify.verify(masked, made, read(masked), x)
    except Exception:  # also where it lacks what was set after its making
        return other
    return made


def _of_its_class(model, smaller):
    """A model of the same class like the smaller one, not verified.

    None if its configuration cannot say how small it is.
    """
    try:
        config = model.get_config()
        sizes = _sizes(model, smaller)
        named = _named(model, smaller)
    except Exception:  # whatever it raises; then it stays a Functional model
        return None
    numbers = dict(_numbers(config))
    likely = {
        place: named[place[-1], value]
        for place, value in numbers.items()
        if (place[-1], value) in named
    }
    trials = changes(numbers, sizes)
    if likely:
        trials = itertools.chain([likely], trials)
    for different in itertools.islice(trials, _TRIALS):
        try:
            made = type(model).from_config(_changed(config, different))
            said = dict(_numbers(made.get_config()))
            _take_over(made, model, smaller)
        except Exception:  # an entry that means something else
            continue
        if said == {**numbers, **different}:
            made.name = model.name
            return made
    return None


def _sizes(model, smaller):
    """What sizes became, by what they were; raises where not one thing."""
    found = {}
    for before, after in _pairs(_layers(model), smaller):
        for old, new in zip(before.shape, after.shape, strict=True):
            if new != old and found.setdefault(old, new) != new:
                raise ValueError(f"{old} became {found[old]} and {new}")
    return found


def _pairs(layers, model):
    """Their variables, and those of the layers with these names in a model."""
    for name, layer in layers:
        others = model.get_layer(name).variables
        yield from zip(layer.variables, others, strict=True)


def _layers(model):
    return [(layer.name, layer) for layer in model.layers]


def _numbers(config: Any, place: tuple = ()) -> Iterator[tuple[tuple, int]]:
    """The whole numbers of a configuration, by where they stand."""
    if isinstance(config, dict):
        for name, value in config.items():
            yield from _numbers(value, (*place, name))
    elif isinstance(config, (list, tuple)):
        for position, value in enumerate(config):
            yield from _numbers(value, (*place, position))
    elif type(config) is int:
        yield place, config


def _changed(config, different, place=()):
    """A configuration with other numbers in some places."""
    if isinstance(config, dict):
        return {
            name: _changed(value, different, (*place, name))
            for name, value in config.items()
        }
    if isinstance(config, (list, tuple)):
        return [
            _changed(value, different, (*place, position))
            for position, value in enumerate(config)
        ]
    return different.get(place, config)


def _named(model, smaller):
    """Numbers that layers have now, by their names and what they were."""
    found = {}
    before = {path: layer for path, layer, _ in _of_other_authors(model)}
    for path, layer, _ in _of_other_authors(smaller):
        said = constructor_arguments(layer)
        for name, value in constructor_arguments(before[path]).items():
            if type(value) is int and said.get(name) != value:
                found[name, value] = said.get(name)
    return found


def _take_over(made, model, smaller):
    """Give a model the weights of the smaller one; raises if they differ."""
    parts, others = ([*one._flatten_layers()] for one in (model, made))
    for old, new in zip(parts, others, strict=True):
        if type(old) is not type(new):
            raise ValueError(f"{old.name} is a {type(new).__name__} now")
        if new.trainable != old.trainable:
            new.trainable = old.trainable
    named = []
    for old, new in zip(model.layers, made.layers, strict=True):
        if old.weights and old.name != new.name:
            raise ValueError(f"{old.name} is called {new.name} now")
        named.append((old.name, new))
    for new, old in _pairs(named, smaller):
        if (old.shape, old.dtype) != (new.shape, new.dtype):
            raise ValueError(f"{old.path} has another shape or dtype")
        new.assign(old)
        take_settings(new, old)
    # A layer of Keras is in the smaller model with all that was set; inside of
    # others, sizes differ from what they were.
    pairs = [
        (old, new, (bool, float, str))
        for old, new in zip(parts, others, strict=True)
    ]
    pairs += [
        (smaller.get_layer(name), new, object)
        for name, new in named
        if type(new).__module__.startswith("keras.")
    ]
    for old, new, kinds in pairs:
        if _settings(old, kinds) != _settings(new, kinds):
            raise ValueError(f"{old.name} was changed after it was made")


def _settings(layer, kinds):
    """What of these kinds a layer is made from, but for its name."""
    try:
        config = layer.get_config()
    except Exception:  # a layer that cannot say
        config = {}
    said = {
        name: value
        for name, value in config.items()
        if name != "name" and isinstance(value, kinds)
    }
    regularizer = keras.saving.serialize_keras_object(
        layer.activity_regularizer
    )
    return said, layer.dtype_policy.name, regularizer


def _mend_layers(model):
    """Let layers say what they can be made from, where they do not."""
    for _, layer, node in _of_other_authors(model):
        if _failure(layer, node, said_by) in ("", _UNCOMPARED):
            continue
        if not _failure(layer, node, constructor_arguments):
            # Keras asks the layer itself.
            layer.get_config = types.MethodType(constructor_arguments, layer)


def unreadable(model: keras.Model) -> tuple[str, ...]:
    """The layers for which Keras cannot read a file of a model, and why.

    Those of a model, nested or not, whose class has a configuration of its
    own are not in the file.
    """
    found = []
    for path, layer, node in _of_other_authors(model, _is_saved_by_layers):
        failure = _failure(layer, node, lambda one: one.get_config())
        if failure not in ("", _UNCOMPARED):
            found.append(
                f"Layer {path!r} of class {type(layer).__name__} cannot be "
                f"made from its own configuration: {failure}"
            )
    return tuple(found)


def _is_saved_by_layers(model):
    if isinstance(model, keras.Sequential):
        return True
    try:
        return "layers" in model.get_config()
    except Exception:  # that of a layer
        return True


def _of_other_authors(
    model: keras.Model,
    enters: Callable[[keras.Model], bool] = lambda _: True,
    scope: tuple[str, ...] = (),
) -> Iterator[tuple[str, keras.Layer, Any]]:
    """(path, layer, its first call) of those that are not Keras's own."""
    if not enters(model):
        return
    seen = set()
    for node in nodes_of(functional_of(model)):
        layer = node.operation
        if id(layer) in seen:
            continue
        seen.add(id(layer))
        if functional_of(layer) is not None:
            inner = (*scope, layer.name)
            yield from _of_other_authors(layer, enters, inner)
        elif (
            isinstance(layer, keras.Layer)
            and type(layer).__module__.split(".")[0] != "keras"
        ):
            yield "/".join([*scope, layer.name]), layer, node


def _failure(layer: keras.Layer, node: Any, say: _Say) -> str:
    """Why a layer cannot be made again from a configuration; "" if it can."""
    try:
        with warnings.catch_warnings():
            # Of what is not registered, which is up to who loads the file.
            warnings.simplefilter("ignore")
            said = keras.saving.serialize_keras_object(say(layer))
        config = json.loads(json.dumps(said))
    except Exception as error:  # whatever it raises
        return _first_line(error)
    failure = ""
    for tried in (config, with_its_objects(layer, config)):
        try:
            made = type(layer).from_config(dict(tried))
            _, (args, kwargs) = entrances(node)
            made(*args, **kwargs)
            return _difference(layer, made, node)
        except Exception as error:
            failure = failure or _first_line(error)
    return failure


def _difference(layer, made, node):
    """How a layer differs from one made again; "" if it does not."""
    shapes = [[tuple(v.shape) for v in one.variables] for one in (layer, made)]
    if shapes[0] != shapes[1]:
        return "its weights have other shapes"
    # Not the layer itself: a call can change seeds, statistics, losses.
    copy = Copier().copy(layer)
    for source, target in zip(copy.variables, made.variables, strict=True):
        target.assign(source)
    _, (args, kwargs) = entrances(node, example)
    try:
        wanted = keras.tree.flatten(copy(*args, **kwargs))
    except Exception:  # whatever it raises on such inputs
        return _UNCOMPARED
    outputs = keras.tree.flatten(made(*args, **kwargs))
    for y, other in zip(wanted, outputs, strict=True):
        if y is None:
            continue
        expected, found = verify.as_array(y), verify.as_array(other)
        if not verify.difference(expected, found) <= verify.tolerance(copy):
            return "it computes something else"
    return ""


def _first_line(error):
    """What was wrong; Keras says the whole configuration before."""
    said = str(error).rsplit("Exception encountered:", maxsplit=1)[-1]
    said = " ".join(said.split())
    if len(said) > _LONGEST:
        said = f"{said[:_LONGEST]} [...]"
    return f"{type(error).__name__}: {said}"
