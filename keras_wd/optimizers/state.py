"""Saving an optimizer's state so that it is loaded whole or not at all.

Keras stores optimizer variables by position and skips them with a warning
when their number differs. Here the names and shapes of all of them, those of
the inner optimizer too, are stored beside the values and compared first.
"""

import json
import re
import warnings
from collections.abc import Sequence

import numpy as np

from keras_wd import backend

FORMAT = 1
_MANIFEST = "manifest"
_MEMORY = "callback_memory"


def save_state(
    store,
    own: Sequence,
    inner: Sequence,
    model: Sequence,
    memory: dict | None = None,
) -> None:
    """Write the manifest of all variables and the values of `own`.

    Args:
        store: what Keras passes to `save_own_variables`.
        own: the wrapper's variables.
        inner: the inner optimizer's variables, which it saves itself.
        model: the trainable variables, whose paths the names contain.
        memory: what callbacks want to find again, as plain Python.
    """
    names = _stable_names([*own, *inner], model)
    manifest = {
        "format": FORMAT,
        "variables": [
            [name, list(variable.shape)]
            for name, variable in zip(names, [*own, *inner], strict=True)
        ],
    }
    store[_MANIFEST] = _to_bytes(manifest)
    if memory:
        store[_MEMORY] = _to_bytes(memory)
    for key, variable in zip(_keys(names[: len(own)]), own, strict=True):
        store[key] = backend.concrete_value(variable)


def load_state(
    store, own: Sequence, inner: Sequence, model: Sequence, name: str
) -> dict:
    """Check the manifest, then read `own`; raise if anything differs.

    The values of `inner` are read by the inner optimizer itself, afterwards.

    Returns:
        The memory that was saved, or an empty one.
    """
    keys = list(store.keys())
    if not keys:
        warnings.warn(
            f"The file has no state for optimizer {name!r}: it starts afresh.",
            stacklevel=2,
        )
        return {}
    if _MANIFEST not in keys:
        _refuse(name, "it was saved by an optimizer that is not of keras_wd")
    try:
        manifest = _from_bytes(store[_MANIFEST])
        found = manifest["format"]
    except (ValueError, KeyError, TypeError):
        _refuse(name, "its list of variables is damaged")
    if found != FORMAT:
        _refuse(
            name,
            f"it has format {found}, and this version of keras_wd reads "
            f"format {FORMAT}",
        )
    saved = [(entry[0], tuple(entry[1])) for entry in manifest["variables"]]
    variables = [*own, *inner]
    current = [
        (stable, tuple(variable.shape))
        for stable, variable in zip(
            _stable_names(variables, model), variables, strict=True
        )
    ]
    if _without_numbers(saved) != _without_numbers(current):
        _refuse(name, _difference(saved, current))
    saved_names = [entry[0] for entry in saved[: len(own)]]
    for key, variable in zip(_keys(saved_names), own, strict=True):
        variable.assign(store[key])
    return _from_bytes(store[_MEMORY]) if _MEMORY in keys else {}


def _to_bytes(structure):
    return np.frombuffer(json.dumps(structure).encode(), dtype="uint8")


def _from_bytes(array):
    return json.loads(bytes(np.asarray(array)).decode())


def _stable_names(variables, model):
    """Names that do not depend on how the model was made.

    Keras names a slot after the path of its variable, and that path loses the
    model's name when a Sequential model is loaded from a file. The last two
    segments, the layer and the weight, stay.
    """
    shortened = {
        variable.path.replace("/", "_"): ".".join(variable.path.split("/")[-2:])
        for variable in model
    }
    # The longest prefix wins: `a_kernel` before `a`.
    prefixes = sorted(shortened, key=len, reverse=True)
    names = []
    for variable in variables:
        name = variable.name
        for prefix in prefixes:
            if name.startswith(f"{prefix}_"):
                name = f"{shortened[prefix]}.{name[len(prefix) + 1 :]}"
                break
        names.append(name.replace("/", "."))
    return names


def _keys(names):
    """A distinct key for every name."""
    seen = {}
    keys = []
    for name in names:
        seen[name] = seen.get(name, -1) + 1
        keys.append(f"{name}#{seen[name]}" if seen[name] else name)
    return keys


def _without_numbers(described):
    """Names without the counters Keras adds to automatic layer names.

    The second model built by the same code in one process has other counters
    (`dense_3` for `dense`), and the same variables in the same order.
    """
    return [(re.sub(r"_\d+", "", name), shape) for name, shape in described]


def _difference(saved, current):
    saved_shapes = dict(saved)
    current_shapes = dict(current)
    parts = []
    missing = [name for name in current_shapes if name not in saved_shapes]
    surplus = [name for name in saved_shapes if name not in current_shapes]
    changed = [
        f"{name} has shape {saved_shapes[name]} in the file and "
        f"{current_shapes[name]} here"
        for name in current_shapes
        if name in saved_shapes and saved_shapes[name] != current_shapes[name]
    ]
    if missing:
        parts.append(f"the file lacks {', '.join(missing)}")
    if surplus:
        parts.append(f"the file has {', '.join(surplus)} besides")
    parts.extend(changed)
    return "; ".join(parts) or "the variables come in another order"


def _refuse(name, difference):
    raise ValueError(
        f"The saved state must fit optimizer {name!r}. Received a file that "
        f"does not: {difference}. Build the optimizer as it was when the file "
        "was written, or load the weights before calling `compile`."
    )
