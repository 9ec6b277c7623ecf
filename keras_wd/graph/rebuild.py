"""Making a model again, with other sizes."""

import dataclasses
import inspect
import operator
from collections.abc import Mapping
from collections.abc import Sequence

import keras
import numpy as np
from keras import layers

from keras_wd.graph.configurations import made_again
from keras_wd.graph.copies import Copier
from keras_wd.graph.structure import functional_of
from keras_wd.graph.structure import nodes_of


@dataclasses.dataclass(frozen=True)
class Edit:
    """What is different about a layer.

    Attributes:
        config: changed entries of its configuration, or attributes of an
            operation that is no layer.
        arrays: new values of its weights, by attribute, "a.b" for one
            of a layer inside.
        values: new values of all its variables, in order; None for what
            `arrays` says.
    """

    config: dict
    arrays: dict[str, np.ndarray]
    values: Sequence[np.ndarray] | None = None


def rebuild(model: keras.Model, edited: Mapping[str, Edit]) -> keras.Model:
    """A new model, not compiled, with weights of its own.

    Args:
        model: the old model; it is not changed.
        edited: what is different, by the path of the layer: its name, with
            the nested models around it before.
    """
    return _Builder(edited).build(model, ())


class _Builder:
    def __init__(self, edited):
        self._edited = edited
        self._copier = Copier()
        self._made = {}

    def build(self, model, scope):
        """The new model of a Sequential or Functional one."""
        functional = functional_of(model)
        kind = _kind_of(model)
        tensors = {
            id(old): self._entrance(old, scope) for old in functional.inputs
        }
        nodes = list(nodes_of(functional))
        if issubclass(kind, keras.Sequential):
            stack = [self._operation(node, scope) for node in nodes]
            (first,) = tensors.values()
            made = kind(
                [first._keras_history.operation, *stack], name=model.name
            )
            for node in nodes:
                self._assign(node.operation, scope)
        else:
            for node in nodes:
                if all(id(tensor) in tensors for tensor in node.input_tensors):
                    self._call(node, tensors, scope)
            inputs, outputs = keras.tree.map_structure(
                lambda tensor: tensors[id(tensor)],
                (functional.input, functional.output),
            )
            made = kind(inputs=inputs, outputs=outputs, name=model.name)
        if not model.trainable:
            made.trainable = False
        return made

    def _entrance(self, old, scope):
        layer = old._keras_history.operation
        edit = self._edited.get("/".join([*scope, layer.name]))
        shape = old.shape if edit is None else edit.config["batch_shape"]
        return keras.Input(
            batch_shape=tuple(shape),
            dtype=old.dtype,
            sparse=old.sparse,
            ragged=getattr(old, "ragged", False),
            name=layer.name,
            optional=getattr(layer, "optional", False),
        )

    def _call(self, node, tensors, scope):
        """Call the new operation on the new tensors, and note its outputs."""
        operation = self._operation(node, scope)
        args, kwargs = keras.tree.map_structure(
            lambda value: tensors.get(id(value), value),
            (node.arguments.args, node.arguments.kwargs),
        )
        made = keras.tree.flatten(operation(*args, **kwargs))
        for old, new in zip(node.outputs, made, strict=True):
            tensors[id(old)] = new
        self._assign(node.operation, scope)

    def _assign(self, old, scope):
        """Give a layer that was made again its weights."""
        edit = self._edited.get("/".join([*scope, old.name]))
        if edit is None or functional_of(old) is not None:
            return
        new = self._made[id(old)]
        if edit.values is not None:
            pairs = zip(old.variables, new.variables, edit.values, strict=True)
            for source, target, values in pairs:
                target.assign(values)
                take_settings(target, source)
        elif edit.arrays:
            for name, values in edit.arrays.items():
                target = operator.attrgetter(name)(new)
                target.assign(values)
                take_settings(target, _attribute(old, name))
        elif isinstance(old, layers.Layer):
            pairs = zip(old.variables, new.variables, strict=True)
            for source, target in pairs:
                # A copy: models that share an array cannot both be compiled
                # with donated arguments.
                target.assign(np.array(source))
                take_settings(target, source)

    def _operation(self, node, scope):
        """The new layer or operation of a call."""
        old = node.operation
        if id(old) in self._made:
            return self._made[id(old)]
        path = "/".join([*scope, old.name])
        edit = self._edited.get(path)
        if functional_of(old) is not None:
            made = self.build(old, (*scope, old.name))
        elif edit is not None and (
            isinstance(old, layers.Layer)
            and (edit.config or edit.values is None)
        ):
            made = made_again(old, edit.config)
        else:
            made = self._copier.copy(old)
            if edit is not None:
                vars(made).update(edit.config)
        self._made[id(old)] = made
        self._copier.remember(old, made)
        return made


def _kind_of(model):
    """The class of the new model.

    A subclass that says itself how it is saved, or is made from something
    else than tensors, describes another network than the smaller one.
    """
    kind = type(model)
    plain = keras.Model
    if isinstance(model, keras.Sequential):
        plain = keras.Sequential
        likeness = keras.Sequential.__init__
    else:
        likeness = type(functional_of(model)).__init__
        for base in kind.__mro__:
            if base.__name__ == "Functional":
                likeness = base.__init__
    if kind.__module__.split(".")[0] == "keras":
        return kind if issubclass(kind, keras.Sequential) else plain
    own = kind.get_config.__module__.split(".")[0] != "keras"
    wanted = inspect.signature(likeness).parameters
    found = inspect.signature(kind.__init__).parameters
    kinds = {parameter.kind for parameter in found.values()}
    general = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
    fits = list(wanted) == list(found) or general <= kinds
    return kind if fits and not own else plain


def take_settings(target: keras.Variable, source: keras.Variable | None):
    """Train, regularize and constrain a variable as another one is.

    Args:
        target: gets the settings.
        source: None for a variable that was not there before.
    """
    if source is not None:
        target.trainable = source.trainable
        target.regularizer = source.regularizer
        target.constraint = source.constraint


def _attribute(layer, path):
    """What stands there, or None."""
    for name in path.split("."):
        layer = getattr(layer, name, None)
    return layer
