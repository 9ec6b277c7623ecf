"""The optimizers inside K-FAC, and which weights each of them steps."""

from collections.abc import Mapping
from collections.abc import Sequence

import keras
from keras.optimizers.schedules import LearningRateSchedule

from keras_wd import where as selections
from keras_wd.optimizers.clipping import before_inner
from keras_wd.optimizers.constrained import Constraints

# What the optimizer around them does for all weights.
_OF_THE_WHOLE = (
    "gradient_accumulation_steps",
    "loss_scale_factor",
    "use_ema",
)


class LearningRateOf(LearningRateSchedule):
    """The learning rate of another optimizer, whatever it is now.

    Args:
        optimizer: the other.
    """

    def __init__(self, optimizer: keras.optimizers.Optimizer):
        self._optimizer = optimizer

    def __call__(self, step):
        """Its learning rate; it counts the steps itself."""
        return self._optimizer.learning_rate

    def get_config(self) -> dict:
        """Nothing: the optimizer itself is saved."""
        return {}


class Division:
    """Who steps which weights.

    Args:
        where: the selection of the weights that are preconditioned, or None
            for all.
        inner: the optimizer that takes the preconditioned gradients, or None
            for the owner of this.
        rest: the optimizer of the weights that `where` leaves out, or None
            for the one that steps the others.

    Raises:
        ValueError: if one of them is something else, or there is no rest.
    """

    def __init__(
        self,
        where: selections.Selection | None,
        inner: keras.optimizers.Optimizer | None,
        rest: keras.optimizers.Optimizer | None,
    ):
        if where is not None:
            selections.check_selection("where", where)
        elif rest is not None:
            raise ValueError(
                "`where` must be given with `rest`: it says which weights "
                f"are not the rest. Received: where=None, rest={rest!r}."
            )
        for name, optimizer in (("inner", inner), ("rest", rest)):
            if optimizer is not None:
                _check(name, optimizer)
        if inner is not None and inner is rest:
            raise ValueError(
                "`rest` must be another optimizer than `inner`, which steps "
                f"all weights without it. Received: {rest!r} for both."
            )
        self._where = where
        self._inner = inner
        self._rest = rest
        self._chosen: frozenset[int] = frozenset()
        self._variables: list[keras.Variable] = []

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Resolve the selection and build the optimizers inside.

        Raises:
            ValueError: if nothing is selected, or nothing is left.
        """
        self._variables = list(variables)
        self._chosen = frozenset(range(len(variables)))
        if self._where is not None and self._variables:
            self._chosen = frozenset(
                selections.selected_indices(self._where, self._variables)
            )
            if self._rest is not None and len(self._chosen) == len(variables):
                raise ValueError(
                    "`where` must leave variables for `rest`. Received: "
                    f"where={self._where!r}, which selects all of them."
                )
        self._constraints = Constraints(self._variables)
        for optimizer in self.optimizers:
            optimizer.build(
                [v for i, v in enumerate(variables) if self._of(i) is optimizer]
            )

    @property
    def optimizers(self) -> list[keras.optimizers.Optimizer]:
        """Those inside."""
        return [one for one in (self._inner, self._rest) if one is not None]

    @property
    def left_out(self) -> frozenset[int]:
        """The positions that are not preconditioned."""
        return frozenset(range(len(self._variables))) - self._chosen

    def _of(self, position):
        """The optimizer inside that steps a variable; None for the owner."""
        if self._rest is not None and position not in self._chosen:
            return self._rest
        return self._inner

    def owner_steps(self, position: int) -> bool:
        """Whether no optimizer inside steps this variable."""
        return self._of(position) is None

    def stepper(self, position: int, owner: keras.optimizers.Optimizer):
        """The optimizer that steps a variable, inside or the owner."""
        inside = self._of(position)
        return owner if inside is None else inside

    def step(self, gradients: Mapping[int, object]) -> list[int]:
        """Let those inside take their steps; the positions of the others.

        Args:
            gradients: by position, those of `where` preconditioned.
        """
        for optimizer in self.optimizers:
            own = [i for i in gradients if self._of(i) is optimizer]
            if not own:
                continue
            with self._constraints.withheld(own):
                optimizer.apply(
                    before_inner(optimizer, [gradients[i] for i in own]),
                    [self._variables[i] for i in own],
                )
        return [i for i in gradients if self.owner_steps(i)]


def check_left_to_inner(**given) -> None:
    """Raise for an argument that the inner optimizer has of its own."""
    for name, value in given.items():
        if value is not None:
            raise ValueError(
                f"`{name}` must be None beside `inner`, whose own counts. "
                f"Received: {name}={value!r}. Pass it to the inner optimizer."
            )


def check_one_decay(rest, weight_decay: float | None) -> None:
    """Raise for a decay of Keras's own, which knows one learning rate."""
    if rest is not None and weight_decay:
        raise ValueError(
            "`weight_decay` must be None beside `rest`, which has another "
            f"learning rate. Received: weight_decay={weight_decay!r}. Put a "
            "WeightDecay around KFAC."
        )


def _check(name, optimizer):
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise ValueError(
            f"`{name}` must be a Keras optimizer, for example "
            f"keras.optimizers.Adam(1e-3). Received: {name}={optimizer!r}"
        )
    reason = _refusal(optimizer)
    if reason:
        expected, fix = reason
        raise ValueError(
            f"`{name}` must be {expected}. Received: {name}="
            f"{type(optimizer).__name__}(name={optimizer.name!r}). {fix}"
        )


def _refusal(optimizer):
    if hasattr(optimizer, "decays"):
        return (
            "an optimizer without WeightDecay",
            "Put the WeightDecay around KFAC: its decays reach all weights.",
        )
    if hasattr(optimizer, "update_curvature"):
        return "another optimizer than KFAC", "Use one KFAC for all blocks."
    if isinstance(
        optimizer,
        keras.optimizers.LossScaleOptimizer | keras.optimizers.MultiOptimizer,
    ):
        return (
            "one optimizer that steps",
            "Put it around KFAC: LossScaleOptimizer(KFAC(...)).",
        )
    for setting in _OF_THE_WHOLE:
        value = getattr(optimizer, setting)
        if value:
            return (
                f"an optimizer without {setting}",
                f"It has {setting}={value!r}. Pass it to KFAC, for all "
                "weights.",
            )
    if optimizer.built:
        return (
            "an optimizer that has not trained anything yet",
            "Pass a new one: KFAC builds it.",
        )
    return None
