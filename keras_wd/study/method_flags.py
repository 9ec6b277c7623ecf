"""The flags of the methods: the weight decay, and K-FAC."""

from collections.abc import Callable

from absl import flags


def definers(values: flags.FlagValues) -> tuple[Callable, Callable]:
    """Functions that define a text and a yes-or-no flag on `values`."""

    def text(name, default, help_line):
        flags.DEFINE_string(name, default, help_line, flag_values=values)

    def yes_no(name, default, help_line):
        flags.DEFINE_boolean(name, default, help_line, flag_values=values)

    return text, yes_no


def define_decay(values: flags.FlagValues) -> None:
    """The rule, its rate, its coupling and its variables."""
    text, _ = definers(values)
    text(
        "decay",
        "lp",
        "The rule that shrinks weights: none, l2 (classic weight decay), l1, "
        "lp and proximal_lp (p-norm decay), group_lasso (whole units), "
        "path_norm (PathProx: on pairs of layers, coupled l2 on the rest).",
    )
    flags.DEFINE_float(
        "weight_decay",
        None,
        "Rate of the decay. A decoupled l2 step takes learning rate x rate "
        "off every weight, as a fraction. Default: 0.1, or 0.001 for sgd and "
        "momentum.",
        lower_bound=0,
        flag_values=values,
    )
    text(
        "decay_schedule",
        "constant",
        "Course of the rate: constant, constant_timescale (same shrinkage "
        "at any learning rate), proportional (to the learning rate), "
        "warmup_hold (rises, then stays), stepwise (--decay_factors), "
        "auto_l2 (divided by 10 when training stalls).",
    )
    flags.DEFINE_float(
        "decay_warmup_epochs",
        5.0,
        "Epochs over which --decay_schedule=warmup_hold rises from zero.",
        lower_bound=0,
        flag_values=values,
    )
    text(
        "decay_factors",
        "1,0.1,0.01",
        "For --decay_schedule=stepwise: the rate is multiplied by each in "
        "turn, for equal parts of the run.",
    )
    flags.DEFINE_float(
        "p",
        0.8,
        "Exponent of the norm in lp and proximal_lp, above 0. Below 1 most "
        "weights vanish; 2 is close to l2.",
        flag_values=values,
    )
    text(
        "coupling",
        "decoupled",
        "How the decay meets the learning rate: decoupled (times it, as "
        "AdamW in Keras), independent (not), coupled (a penalty in the "
        "gradient).",
    )
    text(
        "where",
        "kernels",
        "Which weights decay: kernels (no biases), everything, embeddings, "
        "attention, normalizations, tokens, or globs on their paths such as "
        "'hidden_*/kernel', separated by commas; a leading ~ leaves out.",
    )


def define_kfac(values: flags.FlagValues) -> None:
    """What `--optimizer=kfac` needs besides."""
    text, _ = definers(values)
    flags.DEFINE_float(
        "damping",
        0.03,
        "For --optimizer=kfac: what is added to the curvature before it is "
        "inverted.",
        lower_bound=0,
        flag_values=values,
    )
    flags.DEFINE_float(
        "kl_clip",
        1e-3,
        "For --optimizer=kfac: steps are shortened to this bound on what they "
        "change in the predictions; 0: not.",
        lower_bound=0,
        flag_values=values,
    )
    text(
        "estimator",
        "fisher",
        "For --optimizer=kfac, the curvature: fisher (labels drawn from the "
        "predictions), gauss_newton (of the outputs alone), their exact forms "
        "with one backward pass per class, or empirical (the true labels).",
    )
    flags.DEFINE_integer(
        "curvature_every",
        10,
        "For --optimizer=kfac: steps between two measurements of curvature.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_integer(
        "invert_every",
        50,
        "For --optimizer=kfac: steps between two inversions.",
        lower_bound=1,
        flag_values=values,
    )
