"""`exclude_from_weight_decay`, said with selections."""

import copy
import re
from collections.abc import Sequence

import keras

from keras_wd import where
from keras_wd.decays.decay import Decay


def without(
    decay: Decay | Sequence[Decay], excluded: where.Selection | None
) -> Decay | Sequence[Decay]:
    """The decays, each as it is but for the variables that are excluded.

    Raises:
        ValueError: for a decay that does not follow `where`.
    """
    if excluded is None:
        return decay
    if isinstance(decay, Decay):
        return _without(decay, excluded)
    return [_without(rule, excluded) for rule in decay]


def _without(decay, excluded):
    if type(decay).select is not Decay.select:
        raise ValueError(
            "`exclude_from_weight_decay` must be used with decays that act on "
            f"one variable at a time. Received: {type(decay).__name__}, which "
            "acts on whole units. Leave pairs out of its `units`."
        )
    rule = copy.copy(decay)
    rule.where = rule.where & ~excluded
    return rule


def excluded(
    var_list: Sequence[keras.Variable] | None,
    var_names: Sequence[str] | None,
    variables: Sequence[keras.Variable] | None,
) -> where.Selection | None:
    """What the arguments of Keras exclude; None for nothing.

    Args:
        var_list: variables.
        var_names: regular expressions, searched for in the path.
        variables: all there are; None if they are not known yet, and paths
            have to be whole.
    """
    parts: list[where.Selection] = []
    if var_list and variables is not None:
        parts.append(where.paths_of(var_list, variables))
    elif var_list:
        whole = (f"^{re.escape(where.path_of(v))}$" for v in var_list)
        parts.append(where.regex(*whole))
    if var_names:
        parts.append(where.regex(*var_names))
    if len(parts) == 2:
        return parts[0] | parts[1]
    return parts[0] if parts else None
