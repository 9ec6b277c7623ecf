"""The wrapper that adds decays to any Keras optimizer.

This is the one module that uses Keras's underscore hooks. The order of one
step is: coupled gradients, the inner optimizer's whole step (accumulation,
clipping, update), decays in the order given, constraints, the moving average.
"""

import copy
import functools
from collections.abc import Sequence

import keras
from keras import ops

from keras_wd import backend
from keras_wd.decays.decay import Decay
from keras_wd.errors import check_name
from keras_wd.optimizers import clipping
from keras_wd.optimizers.assignment import add_anchors
from keras_wd.optimizers.assignment import add_slots
from keras_wd.optimizers.assignment import add_unrounded
from keras_wd.optimizers.assignment import assign_slots
from keras_wd.optimizers.assignment import assign_weights
from keras_wd.optimizers.averages import assigned
from keras_wd.optimizers.averages import release_averages
from keras_wd.optimizers.averages import start_averages
from keras_wd.optimizers.averages import update_averages
from keras_wd.optimizers.chain import parts
from keras_wd.optimizers.checks import check_average
from keras_wd.optimizers.checks import check_decays
from keras_wd.optimizers.checks import check_inner_optimizer
from keras_wd.optimizers.checks import checked_positions
from keras_wd.optimizers.constrained import Constraints
from keras_wd.optimizers.decay_step import DecayStep
from keras_wd.optimizers.delegation import DelegatesToInner
from keras_wd.optimizers.matching import path_of
from keras_wd.optimizers.metric import StepMetric
from keras_wd.optimizers.metric import check_metric_of
from keras_wd.optimizers.rates import LearningRates
from keras_wd.optimizers.rates import Rates
from keras_wd.optimizers.saved_state import SavesState
from keras_wd.optimizers.settings import building_its_own
from keras_wd.optimizers.touched import TouchedRows


@keras.saving.register_keras_serializable("keras_wd.optimizers")
class WeightDecay(DelegatesToInner, SavesState, keras.optimizers.Optimizer):
    """Any Keras optimizer, followed by one or more decays.

    Formula, with `w-` and `w+` the weights before and after the inner step:
    `w <- decay.shrink(w+, w-, s)`, where `s = learning_rate * rate` for
    `coupling="decoupled"` and `s = rate` for `"independent"`. A `"coupled"`
    decay adds `rate * gradient of its penalty` to the gradient instead.

    Convention: the learning rate is the scheduled one of this very step,
    `inner_optimizer.learning_rate` (or that of KFAC's `rest`), also where the
    inner step takes a multiple of it, as Muon's `adam_lr_ratio` says and
    Adafactor does by itself; the rate is a function of `iterations`, which
    counts real updates. Under gradient accumulation a decay acts once per real
    update. A step that loss scaling skips decays nothing. A variable without a
    gradient is not decayed (JAX passes zeros for unused variables, which count
    as gradients). On several devices the inner optimizer's clipping sees the
    gradient of the whole batch. The constraint of a variable acts once in a
    step, after the decay, as in an optimizer of Keras with its own decay.

    float64 variables: the rate, and a learning rate written with at most
    seven digits, are exactly those numbers, although a variable of Keras
    keeps them in float32. The inner step itself takes the learning rate as
    Keras has it, and a schedule is computed in `keras.config.floatx()`: with
    "float64" there everything is float64.

    bfloat16 and float16 variables: a decay smaller than the variable's
    rounding would be lost, so the weight before it is rounded is kept beside it
    in float32, 4 bytes per decayed weight, until the variable is assigned
    something else; float32 variables need nothing. The moving average starts
    anew where weights were assigned between two steps.

    Args:
        inner_optimizer: any Keras optimizer without a weight decay or a
            moving average of its own and whose step does not read the weights
            (not `Ftrl`, not `ScheduleFreeAdamW`).
        decay: a decay from `keras_wd.decays`, or a list, applied in order.
        use_ema: keep an exponential moving average of the decayed weights,
            and put it into the model when `fit` ends, as in Keras.
        ema_momentum: its momentum, in [0, 1].
        ema_overwrite_frequency: put the average into the model every so many
            updates; None for at the end only.
        name: name of the optimizer.

    Raises:
        ValueError: if an argument is out of range or the inner optimizer
            cannot be combined with a decay; when built, if a decay selects
            nothing or something it cannot act on.

    >>> import keras
    >>> from keras_wd import decays, optimizers
    >>> optimizer = optimizers.WeightDecay(
    ...     keras.optimizers.SGD(0.5), decays.L2(0.1)
    ... )
    >>> w = keras.Variable([[2.0]], name="kernel")
    >>> optimizer.apply([keras.ops.array([[1.0]])], [w])
    >>> round(float(w.numpy()[0, 0]), 4)
    1.4
    >>> [round(r, 4) for r in optimizer.current_weight_decay().values()]
    [0.1]

    Source: Loshchilov and Hutter, 2019, "Decoupled Weight Decay
    Regularization", generalised to other rules, rates and selections.
    """

    def __init__(
        self,
        inner_optimizer: keras.optimizers.Optimizer,
        decay: Decay | Sequence[Decay],
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        name: str | None = None,
    ):
        check_inner_optimizer(inner_optimizer)
        decays = check_decays(decay)
        check_metric_of(inner_optimizer, decays.values())
        super().__init__(
            learning_rate=0.0,
            name=check_name("name", name),
            **check_average(use_ema, ema_momentum, ema_overwrite_frequency),
        )
        self._forget_own_counters()
        self.decay = decay
        self.decays = decays
        self.inner_optimizer = inner_optimizer
        self._learning_rates = LearningRates(
            inner_optimizer, [o._learning_rate for o in parts(inner_optimizer)]
        )
        self._rates = Rates(decays, self.add_variable)
        self._keep_state()

    def _forget_own_counters(self):
        # The counter and the learning rate in force are the inner ones.
        # `_untrack_variable` would delete them from a list that TensorFlow
        # tracks too, which it then neither exports nor checkpoints: a new
        # list, which Keras's tracker must not wrap in one of its own.
        tracker = vars(self).pop("_tracker")
        self._variables = []
        self._tracker = tracker
        belongs, _ = tracker.config["variables"]
        tracker.config["variables"] = (belongs, self._variables)
        tracker.stored_ids["variables"].clear()

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Create the state for `variables` and resolve the selections."""
        if self.built:
            return
        if not len(variables):
            # Those of the model may follow.
            self.saved_state.expects_values = True
            return
        clipping.check_replicas(self.inner_optimizer)
        variables = list(variables)
        self._exclude(variables)
        self._selected = self._resolve(variables)
        self.inner_optimizer.build(variables)
        self._learning_rates.build(self.decays, self._selected, variables)
        with building_its_own(self):
            super().build(variables)
        self._constraints = Constraints(variables)
        self._anchors = [
            add_anchors(self, key, rule, variables, self._selected[key])
            for key, rule in self.decays.items()
        ]
        self._slots = [
            add_slots(self, key, rule, variables, self._selected[key])
            for key, rule in self.decays.items()
        ]
        decayed = {i for chosen in self._selected.values() for i in chosen}
        self._unrounded = [
            add_unrounded(self, variable) if index in decayed else None
            for index, variable in enumerate(variables)
        ]
        if self.use_ema:
            averages = self._model_variables_moving_average
            self._fingerprints = start_averages(self, variables, averages)
            # `SwapEMAWeights` looks for the averages one level further in.
            vars(self.inner_optimizer)["_model_variables_moving_average"] = (
                averages
            )
        self.saved_state.after_build(variables)

    def _resolve(self, variables):
        """The positions each decay acts on, verified."""
        eligible = [
            index
            for index, variable in enumerate(variables)
            if not self._overwrite_variable_with_gradient(variable)
        ]
        if not eligible:
            # A model without anything to train, which JAX builds for.
            return {key: [] for key in self.decays}
        return checked_positions(self.decays, variables, eligible)

    def stateless_apply(self, optimizer_variables, grads, trainable_variables):
        """One step of values, for JAX; see `keras.optimizers.Optimizer`."""
        if not len(trainable_variables):
            # A loss scale passes the variables in place of their values.
            values = [ops.convert_to_tensor(v) for v in optimizer_variables]
            return trainable_variables, values
        return super().stateless_apply(
            optimizer_variables, grads, trainable_variables
        )

    def apply(self, grads, trainable_variables=None) -> None:
        """One step: gradients to the inner optimizer, then the decays."""
        grads = list(grads)
        if not grads:
            return
        variables = self._known_variables(trainable_variables)
        if len(grads) != len(variables):
            raise ValueError(
                "`grads` must have one entry per variable. Received: "
                f"{len(grads)} gradients for {len(variables)} variables."
            )
        positions = [self._get_variable_index(v) for v in variables]
        if any(map(backend.is_traced, grads)):
            self.__dict__["_compiled"] = True
        # All of this is read before the inner step changes it.
        is_update = self._is_update()
        step = self._decay_step(positions, variables, grads, is_update)
        update_count = self.inner_optimizer.iterations + 1
        if self.use_ema:
            changed = assigned(self._trainable_variables, self._fingerprints)

        grads = step.couple(dict(zip(positions, grads, strict=True)))
        grads = clipping.before_inner(self.inner_optimizer, grads.values())
        step.metric.read(dict(zip(positions, grads, strict=True)))
        with self._constraints.withheld(step.positions):
            self.inner_optimizer.apply(grads, variables)
        for position, weights in step.shrink().items():
            assign_weights(
                self._trainable_variables[position],
                weights,
                self._unrounded[position],
                is_update,
                self._constraints.of(position),
            )
        for slots, values in step.slot_values:
            assign_slots(slots, values, is_update)
        if self.use_ema:
            update_averages(
                self._trainable_variables,
                self._model_variables_moving_average,
                self._fingerprints,
                changed,
                momentum=self.ema_momentum,
                overwrite_frequency=self.ema_overwrite_frequency,
                update_count=update_count,
                is_update=is_update,
            )

    def _known_variables(self, trainable_variables):
        if trainable_variables is None:
            if not self.built:
                raise ValueError(
                    "`trainable_variables` must be given to the first `apply` "
                    "of an optimizer that is not built. Received: "
                    "trainable_variables=None. Call "
                    "`optimizer.build(model.trainable_variables)` first."
                )
            return list(self._trainable_variables)
        variables = list(trainable_variables)
        if not self.built:
            self.build(variables)
        self._check_variables_are_known(variables)
        return variables

    def _decay_step(self, positions, variables, grads, is_update):
        gradients = dict(zip(positions, grads, strict=True))
        reached = {
            position: variable
            for position, variable in zip(positions, variables, strict=True)
            if gradients[position] is not None
        }
        inner = self.inner_optimizer
        accumulated = getattr(inner, "_accumulated_gradients", ())
        return DecayStep(
            self.decays,
            {
                key: self.decays[key].restrict(chosen, reached)
                for key, chosen in self._selected.items()
            },
            rates=functools.partial(self._rates.at, inner.iterations),
            learning_rates=self._learning_rates.at,
            variables=reached,
            touched=TouchedRows(inner, gradients, is_update, accumulated),
            metric=StepMetric(inner, accumulated),
            anchors=dict(zip(self.decays, self._anchors, strict=True)),
            unrounded=self._unrounded,
            slots=dict(zip(self.decays, self._slots, strict=True)),
            iterations=inner.iterations,
            loss_scale=self.loss_scale_factor,
        )

    def _is_update(self):
        """Whether this step is a real update; None if every step is."""
        steps = self.inner_optimizer.gradient_accumulation_steps
        if not steps:
            return None
        return ops.equal((self.inner_optimizer._iterations + 1) % steps, 0)

    def finalize_variable_values(self, var_list) -> None:
        """Put the moving average, if there is one, into the variables."""
        # Without a step there is nothing to put there.
        if not self.use_ema or not self.built or not self._has_stepped():
            return
        super().finalize_variable_values(var_list)
        release_averages(
            self._trainable_variables,
            self._model_variables_moving_average,
            self._fingerprints,
        )

    def _has_stepped(self):
        return bool(backend.concrete_value(self.inner_optimizer._iterations))

    @property
    def has_averages(self) -> bool:
        """Whether there are moving averages of the weights."""
        return "_model_variables_moving_average" in vars(self)

    def current_weight_decay(self) -> dict[str, float]:
        """The rate of every decay now, by the decay's name."""
        return self._rates.read(self.iterations)

    def set_weight_decay(self, value: float, name: str | None = None) -> None:
        """Set the rate of a decay, also between the batches of a `fit`.

        Args:
            value: the new rate, >= 0.
            name: a key of `current_weight_decay`, if there are several.

        Raises:
            ValueError: if the decay is not there or follows a schedule.
        """
        self._rates.set(value, name)

    def slots_of(
        self, name: str | None = None
    ) -> dict[str, dict[str, keras.Variable]]:
        """What a decay keeps of its variables, by their path, and by name.

        Args:
            name: a key of `current_weight_decay`, if there are several.

        Raises:
            ValueError: if the decay is not there.
        """
        key = self._rates.checked(name)
        if not self.built:
            return {}
        kept = self._slots[list(self.decays).index(key)]
        pairs = zip(self._trainable_variables, kept, strict=True)
        return {path_of(v): dict(slots) for v, slots in pairs if slots}

    @property
    def variables(self) -> list[keras.Variable]:
        """The wrapper's own state and that of the inner optimizer."""
        return self._variables + self.inner_optimizer.variables

    def get_config(self) -> dict:
        """The constructor's arguments as plain Python."""
        serialize = keras.saving.serialize_keras_object
        rules = [self._with_rate(key) for key in self.decays]
        one = isinstance(self.decay, Decay)
        return {
            "name": self.name,
            "inner_optimizer": serialize(self.inner_optimizer),
            "decay": rules[0] if one else rules,
            "use_ema": self.use_ema,
            "ema_momentum": self.ema_momentum,
            "ema_overwrite_frequency": self.ema_overwrite_frequency,
        }

    def _with_rate(self, key):
        """A decay, serialized, at the rate in force."""
        decay = keras.saving.serialize_keras_object(self.decays[key])
        rate = self._rates.configured(key)
        if rate is not None and "weight_decay" in decay["config"]:
            decay["config"]["weight_decay"] = rate
        return decay

    @classmethod
    def from_config(cls, config: dict, custom_objects=None) -> "WeightDecay":
        """The inverse of `get_config`."""
        # Keras replaces entries of the dictionaries it reads.
        config = copy.deepcopy(config)
        for key in ("inner_optimizer", "decay"):
            config[key] = keras.saving.deserialize_keras_object(
                config[key], custom_objects=custom_objects
            )
        return cls(**config)
