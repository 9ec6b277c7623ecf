"""Options that several decays share: cautious, and the optimizer's metric."""

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
