"""Every decay beside its float64 reference."""

import functools
from collections.abc import Callable
from typing import NamedTuple

from keras_wd import decays
from tests import reference


class Rule(NamedTuple):
    """A decay and the reference of its three functions of one weight.

    The weights are Dense kernels `(fan_in, units)`, so that a unit is a
    column: `axis=-1` for the package, sums over axis 0 for the reference.
    """

    make: Callable
    shrink: Callable
    gradient: Callable
    penalty: Callable
    coupled: bool = True


def _power(kind, p, shrink):
    return Rule(
        functools.partial(kind, p=p),
        functools.partial(shrink, p=p),
        functools.partial(reference.lp_gradient, p=p),
        functools.partial(reference.lp_penalty, p=p),
        coupled=kind is decays.Lp,  # neither a proximal step nor a late one
    )


def _proximal(w, before, s, p):
    return reference.prox_lp(w, s, p)


def _group(w, before, s):
    return reference.group_soft_threshold(w, s, (0,))


RULES = {
    "l2": Rule(
        decays.L2,
        reference.shrink_l2,
        functools.partial(reference.lp_gradient, p=2),
        reference.l2_penalty,
    ),
    "l1": Rule(
        decays.L1,
        reference.shrink_l1,
        functools.partial(reference.lp_gradient, p=1),
        reference.l1_penalty,
    ),
    "lp 0.5": _power(decays.Lp, 0.5, reference.shrink_lp),
    "lp 0.8": _power(decays.Lp, 0.8, reference.shrink_lp),
    "lp 0.8 late": _power(
        functools.partial(decays.Lp, late=True), 0.8, reference.shrink_lp_late
    ),
    "lp 2": _power(decays.Lp, 2.0, reference.shrink_lp),
    "lp 3.3": _power(decays.Lp, 3.3, reference.shrink_lp),
    "proximal 0.5": _power(decays.ProximalLp, 0.5, _proximal),
    "proximal 1.3": _power(decays.ProximalLp, 1.3, _proximal),
    "group lasso": Rule(
        decays.GroupLasso,
        _group,
        functools.partial(reference.group_gradient, axis=(0,)),
        functools.partial(reference.group_penalty, axis=(0,)),
    ),
}
