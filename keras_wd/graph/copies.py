"""Copies of layers that have variables of their own and share the rest.

A copy is made attribute by attribute, not from a configuration: functions,
regularizers, vocabularies and constants are the very objects of the layer, so
none of them has to be registered, saved or saveable.
"""

import types

import keras
import numpy as np
from keras import layers

# What Keras makes for every layer and what belongs to one instance alone.
_OWN_TO_AN_INSTANCE = frozenset(
    (*vars(layers.Layer()), "_tracked", "_obj_reference_counts_dict")
)
_COPIED = (
    "_allow_non_tensor_positional_args",
    "_auto_config",
    "_build_shapes_dict",
    "_called",
    "_convert_input_args",
    "_dtype_policy",
    "_input_spec",
    "_path",
    "_supports_masking",
    "_trainable",
    "activity_regularizer",
    "autocast",
    "built",
    "supports_jit",
)
# What TensorFlow adds when it tracks an attribute.
_TENSORFLOWS = (
    "_self_name_based_restores",
    "_self_saveable_object_factories",
    "_self_setattr_tracking",
    "_self_unconditional_",
    "_self_update_uid",
)


class Copier:
    """Copies layers; what several of them share, their copies share too."""

    def __init__(self):
        self._made = {}

    def copy(self, layer: keras.Operation) -> keras.Operation:
        """A layer or operation that is called nowhere yet.

        Raises:
            ValueError: if some of its variables cannot be copied.
        """
        made = self._copied(layer)
        if isinstance(layer, layers.Layer):
            old = [id(variable) for variable in layer.variables]
            new = {id(variable) for variable in made.variables}
            if len(old) != len(made.variables) or new & set(old):
                raise ValueError(
                    "`model` must consist of layers that can be copied. "
                    f"Received: layer {layer.name!r} of class "
                    f"{type(layer).__name__}, which keeps variables outside "
                    "of its attributes."
                )
        return made

    def remember(self, old: object, new: object) -> None:
        """Use `new` wherever a copied layer holds `old`."""
        self._made[id(old)] = new

    def _copied(self, value):
        if id(value) in self._made:
            return self._made[id(value)]
        if isinstance(value, keras.Variable):
            made = copied_variable(value)
        elif isinstance(value, layers.Layer):
            return self._copied_layer(value)
        elif isinstance(value, keras.Operation):
            return self._copied_operation(value)
        elif isinstance(value, keras.random.SeedGenerator):
            made = self._copied_seeds(value)
        elif isinstance(value, types.MethodType):
            owner = self._made.get(id(value.__self__))
            return value if owner is None else value.__func__.__get__(owner)
        elif isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*map(self._copied, value))
        elif isinstance(value, tuple):
            return tuple(map(self._copied, value))
        elif isinstance(value, list):
            return [self._copied(item) for item in value]
        elif isinstance(value, dict):
            return {key: self._copied(item) for key, item in value.items()}
        elif isinstance(value, set):
            return {self._copied(item) for item in value}
        else:
            return value
        self._made[id(value)] = made
        return made

    def _copied_operation(self, operation):
        made = object.__new__(type(operation))
        self._made[id(operation)] = made
        for name, value in vars(operation).items():
            vars(made)[name] = self._copied(value)
        made._inbound_nodes, made._outbound_nodes = [], []
        return made

    def _copied_layer(self, layer):
        made = type(layer).__new__(type(layer))
        self._made[id(layer)] = made
        if isinstance(layer, keras.Model):
            # Sets up the trainer; no layer of its own is made.
            keras.Model.__init__(made, name=layer.name)
        else:
            layers.Layer.__init__(made, name=layer.name)
        unlocked = {*_OWN_TO_AN_INSTANCE} - {*_COPIED}
        if isinstance(layer, keras.Model):
            unlocked |= {*vars(keras.Model())}
            unlocked -= {*_COPIED}
        for name, value in vars(layer).items():
            if name not in unlocked and not name.startswith(_TENSORFLOWS):
                setattr(made, name, self._copied(value))
        self._track_unnamed(layer, made)
        made._lock_state()
        return made

    def _track_unnamed(self, layer, made):
        """Variables that no attribute names, and the order of all."""
        for name in ("_trainable_variables", "_non_trainable_variables"):
            wanted = [self._copied(v) for v in getattr(layer, name)]
            have = getattr(made, name)
            unnamed = [
                variable
                for variable in wanted
                if not any(variable is other for other in have)
            ]
            if unnamed:
                # Keras tracks what an attribute holds.
                setattr(made, f"unnamed{name}", unnamed)
            have.sort(key=_position_in(wanted))
        for name in ("_layers", "_seed_generators"):
            have = getattr(made, name)
            have.sort(key=_position_in(map(self._copied, getattr(layer, name))))

    def _copied_seeds(self, generator):
        made = object.__new__(type(generator))
        self._made[id(generator)] = made
        for name, value in vars(generator).items():
            object.__setattr__(made, name, value)
        object.__setattr__(made, "state", self._copied(generator.state))
        return made


def _position_in(wanted):
    positions = {id(item): number for number, item in enumerate(wanted)}
    return lambda item: positions.get(id(item), len(positions))


def copied_variable(variable: keras.Variable) -> keras.Variable:
    """A variable with the same value, in memory of its own."""
    made = keras.Variable(
        np.asarray(variable.value).copy(),
        dtype=variable.dtype,
        trainable=variable.trainable,
        autocast=variable._autocast,
        aggregation=variable.aggregation,
        name=variable.name,
    )
    made._path = variable.path
    made.regularizer = variable.regularizer
    made.constraint = variable.constraint
    made.overwrite_with_gradient = variable.overwrite_with_gradient
    return made
