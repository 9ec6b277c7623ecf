"""The settings of a Keras optimizer, as attributes of a wrapper.

Keras keeps `clipnorm` and the like as Python numbers that anyone may assign.
On a wrapper they belong to the optimizer inside, or to the moving average
that the wrapper keeps itself; a value that nothing would read is refused.
"""

import contextlib
import warnings
from collections.abc import Callable

from keras_wd.errors import check_count
from keras_wd.errors import check_flag
from keras_wd.errors import check_number

_CLIPPING = ("clipnorm", "clipvalue", "global_clipnorm")


class Setting:
    """A descriptor: checks what is assigned and passes it on.

    Args:
        check: a function of the wrapper, the name and the value that returns
            the value, or raises.
        inner: whether the inner optimizer has it; the wrapper itself if not.
    """

    def __init__(self, check: Callable, *, inner: bool):
        self._check = check
        self._inner = inner

    def __set_name__(self, owner, name):
        self._name = name

    def __get__(self, optimizer, owner=None):
        if optimizer is None:
            return self
        if not self._inner:
            return vars(optimizer).get(f"_own_{self._name}")
        inner = vars(optimizer).get("inner_optimizer")
        if inner is None or vars(optimizer).get("_building"):
            return None
        return getattr(inner, self._name)

    def __set__(self, optimizer, value):
        if "inner_optimizer" not in vars(optimizer):
            # Keras's constructor; the inner optimizer has its own values.
            if not self._inner:
                vars(optimizer)[f"_own_{self._name}"] = value
            return
        value = self._check(optimizer, self._name, value)
        warn_if_compiled(optimizer, self._name, value)
        if self._inner:
            setattr(optimizer.inner_optimizer, self._name, value)
        else:
            vars(optimizer)[f"_own_{self._name}"] = value


@contextlib.contextmanager
def building_its_own(optimizer):
    """While Keras builds the wrapper: what is inside is built already."""
    vars(optimizer)["_building"] = True
    try:
        yield
    finally:
        vars(optimizer)["_building"] = False


def warn_if_compiled(optimizer, name: str, value) -> None:
    """Warn where a new value cannot reach a step that is compiled."""
    compiled = vars(optimizer).get("_compiled", False)
    before = getattr(optimizer, name)
    if compiled and before is not value and before != value:
        warnings.warn(
            f"`{name}` was {before!r} when the training step was compiled, "
            f"which goes on with that. Received: {name}={value!r}. Call "
            "`model.compile` again, with this optimizer, for it to act.",
            stacklevel=4,
        )


def check_clipping(optimizer, name: str, value: float | None):
    """A limit >= 0 or None; Keras acts on one of the three."""
    if value is None:
        return None
    for other in _CLIPPING:
        found = getattr(optimizer, other)
        if other != name and found is not None:
            raise ValueError(
                f"`{name}` must be None beside {other}, because only "
                f"one kind of clipping is applied. Received: {name}={value!r} "
                f"with {other}={found!r}. Set {other}=None first."
            )
    return check_number(name, value, minimum=0)


def check_loss_scale(optimizer, name: str, value: float | None):
    """A factor > 0, or None."""
    return None if value is None else check_number(name, value, above=0)


def check_accumulation(optimizer, name: str, value: int | None):
    """A count >= 2, or None; the sums of gradients are made when built."""
    if value is None:
        return None
    value = check_count(name, value, minimum=2)
    if optimizer.built and not getattr(optimizer, name):
        raise ValueError(
            f"`{name}` must be set before the optimizer is built: the build "
            "creates the sums of the gradients. Received: "
            f"{name}={value} afterwards. "
            "Pass it to the constructor of the inner optimizer."
        )
    return value


def check_use_average(optimizer, name: str, value: bool):
    """True or False; the averages are made when the optimizer is built."""
    check_flag(name, value)
    if value and optimizer.built and not optimizer.has_averages:
        raise ValueError(
            f"`{name}` must be set before the optimizer is built: the build "
            f"creates the averages. Received: {name}=True afterwards. Pass "
            f"{name}=True to the constructor."
        )
    return value


def check_momentum(optimizer, name: str, value: float):
    """A number in [0, 1]."""
    return check_number(name, value, minimum=0, maximum=1)


def check_frequency(optimizer, name: str, value: int | None):
    """A count >= 1, or None."""
    return None if value is None else check_count(name, value)
