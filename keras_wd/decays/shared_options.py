"""Options that several decays share."""

import os
import re
import warnings
from collections.abc import Sequence

import keras
import numpy as np

from keras_wd import backend
from keras_wd import where as selections
from keras_wd.errors import check_choice
from keras_wd.errors import check_flag


def check_cautious(cautious: bool, coupling: str) -> bool:
    """Return whether a decay spares the weights that the step makes larger.

    A cautious decay acts on a weight only where `(w- - w+) * w- >= 0`, with
    `w-` the weight before the inner step and `w+` after it, also where other
    decays come in between: the step moved the weight toward zero, through
    zero, or not at all.

    Raises:
        ValueError: for a coupled decay, which is a part of that step.
    """
    check_flag("cautious", cautious)
    if cautious and coupling == "coupled":
        raise ValueError(
            "`cautious` must be False for a coupled decay: it is a part of "
            "the step that a cautious decay looks at. Received: cautious=True "
            "with coupling='coupled'. Use coupling='decoupled' or "
            "'independent'."
        )
    return cautious


def check_metric(metric: str | None, coupling: str) -> str | None:
    """Return the metric of a proximal step, `"optimizer"` or None.

    None measures the distance to `w+` as `|w - w+|^2 / 2`. `"optimizer"`
    measures it as the inner optimizer does: `sum d (w - w+)^2 / 2`, where its
    step divides the averaged gradient by d. The strength of weight i is then
    `s / d_i`.

    Raises:
        ValueError: for a coupled decay, which takes no proximal step.
    """
    if metric is None:
        return None
    check_choice("metric", metric, ("optimizer",))
    if coupling == "coupled":
        raise ValueError(
            "`metric` must be None for a coupled decay, which adds a gradient "
            "and takes no proximal step. Received: metric='optimizer' with "
            "coupling='coupled'. Use coupling='decoupled' or 'independent'."
        )
    return metric


def check_anchor(
    anchor: str | keras.Model | None, coupling: str
) -> str | keras.Model | None:
    """Return what a decay pulls toward, or raise; for every coupling.

    None is zero, `"start"` the weights when the optimizer is built; else the
    weights of the same names of a built model, or of a `.keras` file.

    Raises:
        ValueError: if it is none of these, or the file is not there.
    """
    if anchor is None or isinstance(anchor, keras.Model):
        return anchor
    if isinstance(anchor, os.PathLike):
        anchor = os.fspath(anchor)
    if isinstance(anchor, str) and (
        anchor == "start"
        or (anchor.endswith(".keras") and os.path.isfile(anchor))
    ):
        return anchor
    raise ValueError(
        "`anchor` must be None, 'start', a built model or the path of an "
        f"existing .keras file. Received: anchor={anchor!r}"
    )


def check_touched_rows(touched_rows: bool, coupling: str) -> bool:
    """Return whether a decay acts on the rows with a gradient alone.

    A row is what one index of axis 0 picks, a token of an embedding table. It
    is touched where its gradient of the whole update is not zero: of all
    accumulated steps and of all replicas. For every coupling.
    """
    return check_flag("touched_rows", touched_rows)


def anchor_config(anchor: str | keras.Model | None) -> str | None:
    """An anchor as plain Python: a model's weights are in the saved state."""
    return "start" if isinstance(anchor, keras.Model) else anchor


def check_not_zero(
    variables: Sequence[keras.Variable],
    where: selections.Selection,
    reason: str,
) -> None:
    """Raise if a variable is all zero, as far as it has a value."""
    for variable in variables:
        value = backend.concrete_value(variable)
        if value is not None and not value.any():
            path = selections.path_of(variable)
            ending = "/".join(path.split("/")[-2:])
            raise ValueError(
                "`where` must select variables that are not all zero, "
                f"because {reason}. Received: where={where!r}, which selects "
                f"{path}. Initialize it differently, or leave it "
                f"out with `& ~where.paths({ending!r})`."
            )


_CHECKS = {
    "cautious": check_cautious,
    "metric": check_metric,
    "anchor": check_anchor,
    "touched_rows": check_touched_rows,
}


class HasOptions:
    """What a rule shares with others: validates, holds and serialises it.

    A rule that has an option passes it to `Decay.__init__` by its name.

    Attributes:
        cautious: whether a weight decays only where the inner step did not
            move it away from zero; see `check_cautious`.
        metric: "optimizer" if the strength is a tensor per variable; see
            `check_metric`.
        anchor: what the weights are pulled toward in place of zero; see
            `check_anchor`.
        touched_rows: whether rows without a gradient stay as they are; see
            `check_touched_rows`.
    """

    cautious = False
    metric = None
    anchor = None
    touched_rows = False

    def _set_options(self, coupling, options):
        self._options = tuple(options)
        for name, value in options.items():
            if name not in _CHECKS:
                raise TypeError(
                    f"{type(self).__name__} got an unexpected keyword argument "
                    f"{name!r}"
                )
            setattr(self, name, _CHECKS[name](value, coupling))

    def _options_config(self):
        """The options of this rule as plain Python."""
        config = {name: getattr(self, name) for name in self._options}
        if "anchor" in config:
            config["anchor"] = anchor_config(config["anchor"])
        return config


def restored_anchor(anchor: str | None) -> str | None:
    """The anchor of a configuration, which may come from another machine."""
    if anchor in (None, "start") or os.path.isfile(anchor):
        return anchor
    warnings.warn(
        f"The file of anchor={anchor!r} is not here: the anchors are those of "
        "the saved optimizer, or the weights the optimizer is built for.",
        stacklevel=3,
    )
    return "start"


def anchor_values(
    anchor: str | keras.Model,
    variables: Sequence[keras.Variable],
    selected: Sequence[int],
) -> list[np.ndarray]:
    """The weights to pull the selected variables toward.

    In a model or a file it is the weight whose path ends in the same layer and
    name. Models made by the same code twice have other automatic names
    (`dense_2` for `dense`): if the names do not fit, and all variables have
    the same shapes in the same order, it is the weight in the same place.

    Args:
        anchor: "start", a model or a file.
        variables: those of the optimizer.
        selected: the positions of those that decay.

    Raises:
        ValueError: if the model does not fit, or a weight has no value yet.
    """
    chosen = [variables[position] for position in selected]
    if anchor != "start":
        if isinstance(anchor, str):
            with backend.outside_program():
                anchor = keras.saving.load_model(anchor, compile=False)
        chosen = _by_name(anchor, chosen) or [
            _by_place(anchor, variables)[position] for position in selected
        ]
    values = [backend.concrete_value(variable) for variable in chosen]
    for variable, value in zip(chosen, values, strict=True):
        if value is None:
            raise ValueError(
                "`anchor` must be given weights that have values. Received: "
                f"{variable.path}, which has none yet. Build the model before "
                "`fit`, for example with keras.Input as its first layer."
            )
    return [np.array(value) for value in values]


def _by_name(model, variables):
    """The weights of the same names, or None if one is missing."""
    twins = []
    for variable in variables:
        found = [o for o in model.weights if _ending(o) == _ending(variable)]
        if len(found) > 1:
            found = [o for o in found if o.path == variable.path]
        if len(found) != 1 or found[0].shape != variable.shape:
            return None
        twins += found
    return twins


def _by_place(model, variables):
    def described(weights):
        return [
            (re.sub(r"_\d+(?=/)", "", _ending(w)), tuple(w.shape))
            for w in weights
        ]

    twins = model.trainable_variables
    ours, theirs = described(variables), described(twins)
    if ours != theirs:
        missing = [f"{n} {s}" for n, s in ours if (n, s) not in theirs]
        raise ValueError(
            "`anchor` must be a model with the weights of the one that trains. "
            f"Received: {model.name}, without {', '.join(missing[:3])}"
            f"{' and more' if len(missing) > 3 else ''}. Give the layers of "
            "both the same names, or leave weights out with `where=`."
            if missing
            else "`anchor` must be a model whose layers have the names of "
            "those that train, or are in the same order. Received: "
            f"{model.name}, with the same weights in another order."
        )
    return twins


def _ending(variable):
    return "/".join(variable.path.split("/")[-2:])
