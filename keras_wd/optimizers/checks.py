"""Which optimizers and decays go together, and why the others do not."""

from collections.abc import Mapping
from collections.abc import Sequence

import keras

from keras_wd.decays.decay import Decay
from keras_wd.decays.decay import is_complex
from keras_wd.errors import check_count
from keras_wd.errors import check_flag
from keras_wd.errors import check_number
from keras_wd.where import path_of

# Their step reads the weights as part of their own state, so that a decay
# beside the step is undone by it or applied twice.
_READS_WEIGHTS = ("Ftrl", "ScheduleFreeAdamW")


def check_inner_optimizer(inner: keras.optimizers.Optimizer) -> None:
    """Raise unless a decay after this optimizer's step means what it says."""
    if not isinstance(inner, keras.optimizers.Optimizer):
        raise ValueError(
            "`inner_optimizer` must be a Keras optimizer, for example "
            "keras.optimizers.Adam(1e-3). Received: "
            f"inner_optimizer={inner!r}"
        )
    # Those inside of K-FAC step the same weights.
    for one in (inner, *getattr(inner, "optimizers_inside", ())):
        kind = type(one).__name__
        reason = _refusal(one, kind)
        if reason:
            expected, fix = reason
            raise ValueError(
                f"`inner_optimizer` must be {expected}. Received: "
                f"inner_optimizer={kind}(name={one.name!r}). {fix}"
            )


def _refusal(inner, kind):
    # A decay set with `WeightDecay` itself is recognised by its attribute, to
    # keep this module free of the class that uses it.
    if hasattr(inner, "decays"):
        return (
            "an optimizer that is not wrapped yet",
            "Pass several decays as one list: WeightDecay(inner, [a, b]).",
        )
    if isinstance(inner, keras.optimizers.LossScaleOptimizer):
        return (
            "the optimizer inside the loss scaling",
            "Wrap the other way round, LossScaleOptimizer(WeightDecay(...)); "
            "`compile` does it by itself under mixed_float16.",
        )
    if isinstance(inner, keras.optimizers.MultiOptimizer):
        return (
            "an optimizer with one learning rate",
            "Put a WeightDecay around each optimizer of the OptimizerMap that "
            "should decay: MultiOptimizer(OptimizerMap(WeightDecay(Adam(), a), "
            "{'head/.*': WeightDecay(SGD(), b)})).",
        )
    for name in _READS_WEIGHTS:
        if isinstance(inner, getattr(keras.optimizers, name, ())):
            return (
                "an optimizer whose step does not read the weights",
                f"{name} derives the weights from its own state, so a decay "
                "of the weights would be lost or applied twice. Use a "
                "regularizer, or another optimizer.",
            )
    for argument in ("weight_decay", "adam_weight_decay"):
        rate = getattr(inner, argument, None)
        if rate:
            return (
                "an optimizer without a weight decay of its own",
                f"It has {argument}={rate!r}. Set the decay in one place: "
                + _without_decay(kind, argument),
            )
    if inner.use_ema:
        return (
            "an optimizer with use_ema=False",
            "Its average would miss the decay. Pass use_ema=True (and "
            "ema_momentum, ema_overwrite_frequency) to WeightDecay.",
        )
    if inner.built:
        return (
            "an optimizer that has not trained anything yet",
            "Pass a new one: the wrapper builds it.",
        )
    return None


def _without_decay(kind, argument):
    if kind == "AdamW":
        return "use keras.optimizers.Adam inside."
    if kind == "Muon":
        return (
            "pass weight_decay=None and adam_weight_decay=None to Muon, and "
            "two decays for its two rates, [L2(a, where=where.kernels()), "
            "L2(b, where=~where.kernels())]."
        )
    return f"pass {argument}=None or 0.0 to the inner optimizer."


def _check_real(variables: Sequence[keras.Variable], rule: Decay) -> None:
    """Raise if a decay selects complex weights that it cannot act on."""
    if rule.takes_complex:
        return
    for variable in variables:
        if is_complex(keras.backend.standardize_dtype(variable.dtype)):
            raise ValueError(
                "`where` must select real weights for this decay, which knows "
                f"no phases. Received: {path_of(variable)} of dtype "
                f"{variable.dtype} for {rule!r}. Leave it out, or use a "
                "decoupled L2, L1, Lp, ProximalLp or GroupLasso without "
                "`cautious` and `metric`."
            )


def _check_rows(variables: Sequence[keras.Variable], rule: Decay) -> None:
    """Raise if a decay of touched rows selects what has none."""
    if not rule.touched_rows:
        return
    for variable in variables:
        if not len(variable.shape):
            raise ValueError(
                "`where` must select variables with rows for "
                f"touched_rows=True. Received: {path_of(variable)}, a scalar, "
                f"for {rule!r}. Leave it out, for example with "
                "where=where.embeddings()."
            )


def checked_positions(
    decays: Mapping[str, Decay],
    variables: Sequence[keras.Variable],
    eligible: Sequence[int],
) -> dict[str, list[int]]:
    """The positions that each decay acts on, or raise if it cannot."""
    selected = {}
    for key, rule in decays.items():
        chosen = rule.select([variables[index] for index in eligible])
        positions = [eligible[index] for index in chosen]
        _check_real([variables[index] for index in positions], rule)
        _check_rows([variables[index] for index in positions], rule)
        rule.check([variables[index] for index in positions])
        selected[key] = positions
    for key, rule in decays.items():
        others = (selected[name] for name in selected if name != key)
        rule.check_beside(selected[key], set().union(*others), variables)
    return selected


def check_average(
    use_ema: bool, ema_momentum: float, ema_overwrite_frequency: int | None
) -> dict:
    """What Keras takes for a moving average of the weights."""
    frequency = ema_overwrite_frequency
    if frequency is not None:
        frequency = check_count("ema_overwrite_frequency", frequency)
    return {
        "use_ema": check_flag("use_ema", use_ema),
        "ema_momentum": check_number(
            "ema_momentum", ema_momentum, minimum=0, maximum=1
        ),
        "ema_overwrite_frequency": frequency,
    }


def check_decays(decay: Decay | Sequence[Decay]) -> dict[str, Decay]:
    """One decay or a list of them, by distinct names in their order."""
    decays = [decay] if isinstance(decay, Decay) else decay
    if (
        not isinstance(decays, list | tuple)
        or not decays
        or not all(isinstance(rule, Decay) for rule in decays)
    ):
        raise ValueError(
            "`decay` must be a decay from `keras_wd.decays`, or a list of "
            f"them. Received: decay={decay!r}"
        )
    named = {}
    for rule in decays:
        name, count = rule.name, 0
        while name in named:
            count += 1
            name = f"{rule.name}_{count}"
        named[name] = rule
    return named
