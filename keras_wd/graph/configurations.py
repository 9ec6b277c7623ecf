"""What layers say of themselves, and making them again from that.

`get_config` is written by hand: that of a layer may raise, may have what the
constructor does not take, or may lack what it needs.
"""

import functools
import inspect
import itertools
import operator
import warnings
from collections.abc import Hashable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import TypeVar

import keras
from keras import layers

_COMBINATIONS = 32

_Name = TypeVar("_Name", bound=Hashable)


def config_of(layer: layers.Layer) -> dict:
    """The configuration of a layer, with its dtype policy itself.

    A plain policy is its name: Keras keeps the arguments of a layer without
    `get_config` only if they are numbers and strings.

    What the attributes say if its own `get_config` raises, as that of
    KerasHub's Llama does.
    """
    try:
        config = said_by(layer)
    except Exception:  # whatever it raises
        config = _attributes(layer)
    return {**config, "dtype": _policy_of(layer)}


def said_by(layer: layers.Layer) -> dict:
    """What its class says of a layer, whatever the instance does."""
    with warnings.catch_warnings():
        # Keras warns of functions without a name. Nothing is saved here.
        warnings.simplefilter("ignore")
        return type(layer).get_config(layer)


def constructor_arguments(layer: layers.Layer) -> dict:
    """What the constructor takes of the configuration and the attributes."""
    taken = _parameters(type(layer))
    config = config_of(layer)
    said = {name: config[name] for name in config if name in taken}
    return {**_attributes(layer), **said}


def _policy_of(layer):
    policy = layer.dtype_policy
    return policy.name if type(policy) is keras.DTypePolicy else policy


def _attributes(layer):
    """What the constructor takes and the layer has as an attribute."""
    config = {
        name: getattr(layer, name)
        for name in inspect.signature(type(layer)).parameters
        if hasattr(layer, name)
    }
    return {**config, "name": layer.name, "trainable": layer.trainable}


def _parameters(kind):
    """What a constructor takes, also for the classes it hands it on to."""
    found = set()
    for base in kind.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = inspect.signature(base.__init__).parameters
        found |= {*parameters}
        kinds = {parameter.kind for parameter in parameters.values()}
        if inspect.Parameter.VAR_KEYWORD not in kinds:
            break
        if base is layers.Layer:
            break
    return found - {"self", "args", "kwargs"}


def made_again(layer: layers.Layer, changes: dict) -> layers.Layer:
    """A layer with a changed configuration, not built yet.

    Functions, regularizers and the like are those of the layer, so that none
    of them has to be found by its name.
    """
    try:
        config = {**with_its_objects(layer, config_of(layer)), **changes}
        return type(layer).from_config(config)
    except TypeError:
        # Its configuration names what its constructor does not take, as that
        # of KerasHub's GPT-NeoX does.
        config = with_its_objects(layer, constructor_arguments(layer))
        return type(layer)(**{**config, **changes})


def with_its_objects(layer: layers.Layer, config: dict) -> dict:
    """A configuration with the functions and the like that a layer holds."""
    found = dict(config)
    for name in config:
        for attribute in (name, f"_{name}"):
            value = vars(layer).get(attribute)
            if callable(value):
                found[name] = value
                break
    return found


def changes(
    numbers: Mapping[_Name, int], sizes: Mapping[int, int]
) -> Iterator[dict[_Name, int]]:
    """What may be different in a configuration, the likeliest first.

    Args:
        numbers: its entries.
        sizes: what numbers of units become, by what they were.

    Returns:
        Entries with other values: for every size those that are equal to it,
        one or several, or one that is a multiple of it.
    """
    numbers = {name: value for name, value in numbers.items() if value > 1}
    choices = []
    for before, after in sizes.items():
        equal = [name for name in numbers if numbers[name] == before]
        others = [
            name
            for name, value in numbers.items()
            if value != before and value * after % before == 0
        ]
        # As many queries as keys are two numbers that are the same.
        together = itertools.chain.from_iterable(
            itertools.combinations(equal, count)
            for count in range(1, len(equal) + 1)
        )
        chosen = itertools.chain(together, ((name,) for name in others))
        choices.append(
            [
                {name: numbers[name] * after // before for name in names}
                for names in itertools.islice(chosen, _COMBINATIONS)
            ]
        )
    combinations = itertools.chain.from_iterable(
        _of_rank(rank, choices) for rank in range(_COMBINATIONS)
    )
    for parts in itertools.islice(combinations, _COMBINATIONS):
        yield functools.reduce(operator.or_, parts, {})


def _of_rank(rank, choices):
    """One of every list, whose places in the lists add up to `rank`."""
    if not choices:
        if not rank:
            yield ()
        return
    first, *others = choices
    for place, part in enumerate(first[: rank + 1]):
        for parts in _of_rank(rank - place, others):
            yield part, *parts
