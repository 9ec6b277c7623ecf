"""Saving an optimizer's state so that it is loaded whole or not at all.

Keras stores optimizer variables by position, where any optimizer of the model
looks for its own, and skips them when their number differs. Here the names and
shapes of all of them, and of the model's variables, are stored beside the
values and compared first. What does not fit is said in one warning, and the
optimizer starts afresh: a state never keeps a model from being used.
"""

import dataclasses
import json
import warnings
import weakref
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_wd import backend
from keras_wd.optimizers.chain import parts
from keras_wd.optimizers.matching import SlotNames
from keras_wd.optimizers.matching import difference
from keras_wd.optimizers.matching import match
from keras_wd.optimizers.matching import shown_paths

FORMAT = 2
_MANIFEST = "manifest"
_MEMORY = "callback_memory"
# A variable of the model in another dtype has one or has none.
_OPTIONAL = ("unrounded",)


class SavesState:
    """Saving and setting the state of an optimizer and of those inside it.

    The class using it calls `_keep_state` when it is constructed, and
    `saved_state.after_build` when it is built.
    """

    def _keep_state(self):
        # Not by assignment, which a wrapper passes on to the one inside.
        vars(self)["saved_state"] = SavedState(self)

    def __dir__(self):
        # Keras saves what it finds here, and all is in `saved_state`.
        hidden = ("inner_optimizer", "optimizers_inside", "inner", "rest")
        return [name for name in super().__dir__() if name not in hidden]

    saved_state: "SavedState"

    def save_own_variables(self, store) -> None:
        """Nothing: the state is in `saved_state`."""

    def load_own_variables(self, store) -> None:
        """Notice the state of another optimizer; see `SavedState`."""
        self.saved_state.foreign = bool(list(store.keys()))

    def set_weights(self, weights: Sequence) -> None:
        """Assign the values of all `variables`, in their order.

        Args:
            weights: arrays, or the `variables` of another optimizer.

        Raises:
            ValueError: if their number or a shape differs, or the optimizer
                is not built.
        """
        self.saved_state.set_values(weights)


@dataclasses.dataclass
class _Saved:
    """What a file holds: how the variables are called, and their values."""

    manifest: dict
    values: Mapping

    @property
    def built(self):
        return self.manifest["built"]

    @property
    def model(self):
        return [(path, tuple(shape)) for path, shape in self.manifest["model"]]

    @property
    def slots(self):
        """The key in the file by owner, name and count of an entry."""
        return {
            (owner, name, count): (key, tuple(shape))
            for key, owner, name, count, shape in self.manifest["variables"]
        }


class SavedState(keras.losses.Loss):
    """Where Keras's saving finds the state of an optimizer.

    It is a loss because Keras visits those, and no other small class of its
    public ones. The optimizer itself stores nothing: an optimizer of Keras
    that a model compiles itself with, and that is not built yet, would take
    what lies there for its own.

    A state that is loaded before the optimizer is built waits for the build.

    Args:
        optimizer: whose state it is. It has `callback_memory` if it has any.
    """

    def __init__(self, optimizer: keras.optimizers.Optimizer):
        super().__init__(name="state")
        # A strong one would be walked through, without an end.
        self._optimizer: Callable[[], Any] = weakref.ref(optimizer)
        self._model = []
        self._waiting: _Saved | None = None
        # Whether the file has something where the optimizer stores nothing.
        self.foreign = False
        # Keras builds the optimizer of an old HDF5 file for no variables, and
        # sets its values then.
        self.expects_values = False
        self._values: list | None = None

    def save_own_variables(self, store) -> None:
        """Write the manifest of all variables, and their values."""
        optimizer = self._optimizer()
        saved = self._collect(optimizer)
        if self._waiting is not None:
            saved = _merged(self._waiting, saved)
        store[_MANIFEST] = _to_bytes(saved.manifest)
        if getattr(optimizer, "callback_memory", None):
            store[_MEMORY] = _to_bytes(optimizer.callback_memory)
        for key, value in saved.values.items():
            store[key] = value

    def load_own_variables(self, store) -> None:
        """Read what was written, if it fits; warn if it does not.

        Raises:
            ValueError: if the file is damaged, or of a newer version.
        """
        optimizer = self._optimizer()
        self._waiting = None
        keys = list(store.keys())
        if not keys:
            reason = "the file has no state of it"
            if self.foreign:
                reason = (
                    "what the file has in its place is of another optimizer, "
                    "or of one with loss scaling around it"
                )
            self._warn(reason, restarted=False)
            return
        manifest = self._manifest(store)
        saved = _Saved(
            manifest,
            {
                entry[0]: np.array(store[entry[0]])
                for entry in manifest["variables"]
            },
        )
        if hasattr(type(optimizer), "callback_memory"):
            memory = _from_bytes(store[_MEMORY]) if _MEMORY in keys else {}
            optimizer.callback_memory = memory
        if optimizer.built:
            self._restore(saved)
            return
        self._assign_scalars(saved)
        if saved.built:
            self._waiting = saved

    def set_values(self, values: Sequence) -> None:
        """Assign all variables in their order; wait if there are none yet."""
        optimizer = self._optimizer()
        # Copies: two optimizers must not share what one of them gives away.
        values = [np.array(ops.convert_to_numpy(value)) for value in values]
        if not optimizer.built:
            if not self.expects_values:
                raise ValueError(
                    "`set_weights` must be called on an optimizer that is "
                    f"built. Received: {len(values)} arrays for optimizer "
                    f"{optimizer.name!r}, which is not. Call "
                    "`optimizer.build(model.trainable_variables)` first."
                )
            self._values = values
            return
        variables = optimizer.variables
        shapes = [tuple(variable.shape) for variable in variables]
        if [value.shape for value in values] != shapes:
            raise ValueError(
                "`weights` must have the shapes of `optimizer.variables`. "
                f"Received: shapes {[value.shape for value in values]} for "
                f"{shapes}."
            )
        for variable, value in zip(variables, values, strict=True):
            backend.assign_now(variable, value)
        self.restored()

    def after_build(self, model: Sequence[keras.Variable]) -> None:
        """Take over what was loaded before there were variables for it.

        Args:
            model: the variables the optimizer was built with.
        """
        self._model = list(model)
        saved, self._waiting = self._waiting, None
        if saved is not None:
            self._restore(saved)
        values, self._values = self._values, None
        if values is not None:
            try:
                self.set_values(values)
            except ValueError:
                self._warn(
                    "the file is of other variables, or was saved before the "
                    "first step"
                )

    def _collect(self, optimizer):
        model = self._model
        slots = SlotNames(optimizer.variables, model)
        structure = {}
        for index, part in enumerate(parts(optimizer)):
            if hasattr(type(part), "saved_structure"):
                structure[str(index)] = part.saved_structure()
        manifest = {
            "format": FORMAT,
            "built": bool(optimizer.built),
            "model": slots.model,
            "variables": slots.entries,
            "structure": structure,
        }
        values = {
            entry[0]: backend.concrete_value(variable)
            for entry, variable in zip(
                slots.entries, optimizer.variables, strict=True
            )
        }
        return _Saved(manifest, values)

    def _manifest(self, store):
        try:
            manifest = _from_bytes(store[_MANIFEST])
            found = manifest["format"]
            if found == FORMAT:
                keys = {entry[0] for entry in manifest["variables"]}
                if not keys <= set(store.keys()):
                    raise ValueError
        except (ValueError, KeyError, TypeError):
            self._refuse("its list of variables is damaged")
        if found != FORMAT:
            self._refuse(
                f"it has format {found}, and this version of keras_wd reads "
                f"format {FORMAT}"
            )
        return manifest

    def _restore(self, saved):
        optimizer = self._optimizer()
        if not saved.built:
            if len(self._model):
                self._restart()
                self._assign_scalars(saved)
                self._warn("the file was saved before its first step")
            return
        model = SlotNames([], self._model).model
        positions = match(saved.model, model)
        if positions is None:
            self._restart()
            self._warn(difference(_shown(saved.model), _shown(model)))
            return
        if len(positions) == len(saved.model):
            for index, part in enumerate(parts(optimizer)):
                structure = saved.manifest["structure"].get(str(index))
                if structure is not None and hasattr(
                    type(part), "saved_structure"
                ):
                    part.restore_structure(structure)
        variables = optimizer.variables
        slots = SlotNames(variables, self._model)
        here = {
            (None if owner is None else positions[owner], name, count): (
                index,
                tuple(shape),
            )
            for index, (_, owner, name, count, shape) in enumerate(
                slots.entries
            )
        }
        # What belongs to a variable that is not trained here is not missed.
        there = {
            entry: found
            for entry, found in saved.slots.items()
            if entry[0] is None or entry[0] in positions
        }
        if _shapes(there) != _shapes(here):
            self._restart()
            paths = [path for path, _ in _shown(saved.model)]
            self._warn(
                difference(_described(there, paths), _described(here, paths))
            )
            return
        for entry, (index, _) in here.items():
            if entry in there:
                backend.assign_now(
                    variables[index], saved.values[there[entry][0]]
                )
        self.restored()

    def restored(self) -> None:
        """Tell the optimizer, and those inside of it, of new values."""
        for part in parts(self._optimizer()):
            if hasattr(type(part), "after_restore"):
                part.after_restore()

    def _assign_scalars(self, saved):
        """Counter, learning rate and rates, which are there before a build."""
        optimizer = self._optimizer()
        slots = SlotNames(optimizer.variables, [])
        for variable, entry in zip(
            optimizer.variables, slots.entries, strict=True
        ):
            found = saved.slots.get((None, *entry[2:4]))
            if found is not None and found[1] == tuple(variable.shape):
                backend.assign_now(variable, saved.values[found[0]])

    def _restart(self):
        """The values of an optimizer that has not trained."""
        optimizer = self._optimizer()
        fresh = type(optimizer).from_config(optimizer.get_config())
        fresh.build(self._model)
        for old, new in zip(optimizer.variables, fresh.variables, strict=False):
            if tuple(old.shape) == tuple(new.shape):
                backend.assign_now(old, backend.concrete_value(new))

    def _warn(self, reason, restarted=True):
        outcome = "starts afresh" if restarted else "is not restored"
        warnings.warn(
            f"Optimizer {self._optimizer().name!r} {outcome}: {reason}. To use "
            "a model without training it, load it with compile=False.",
            stacklevel=2,
        )

    def _refuse(self, reason):
        raise ValueError(
            f"The saved state must fit optimizer {self._optimizer().name!r}. "
            f"Received a file that does not: {reason}. Load the model with "
            "compile=False to use it without its optimizer, or load the "
            "weights before calling `compile`."
        )


def _merged(waiting, current):
    """A state that waits for a build, with the scalars of now."""
    slots = waiting.slots
    values = dict(waiting.values)
    for key, owner, name, count, _ in current.manifest["variables"]:
        found = slots.get((owner, name, count))
        if found is not None:
            values[found[0]] = current.values[key]
    return _Saved(waiting.manifest, values)


def _shapes(slots):
    return {
        entry: shape
        for entry, (_, shape) in slots.items()
        if entry[1] not in _OPTIONAL
    }


def _shown(model):
    paths = shown_paths([path for path, _ in model])
    shapes = [tuple(shape) for _, shape in model]
    return list(zip(paths, shapes, strict=True))


def _described(slots, paths):
    """Name and shape of each entry, for people."""
    return [
        (name if owner is None else f"{paths[owner]}/{name}", shape)
        for (owner, name, _), (_, shape) in slots.items()
        if name not in _OPTIONAL
    ]


def _to_bytes(structure):
    return np.frombuffer(json.dumps(structure).encode(), dtype="uint8")


def _from_bytes(array):
    return json.loads(bytes(np.asarray(array)).decode())
