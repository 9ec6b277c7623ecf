import functools

import keras
import numpy as np
import pytest

from keras_wd import decays
from keras_wd import optimizers
from tests.training import assert_equal
from tests.training import trained

pytestmark = pytest.mark.eager
PAIR = [{"input_kernel": "a/kernel", "output_kernel": "b/kernel"}]


def test_sgdw_is_what_it_spells():
    spelled = optimizers.WeightDecay(
        keras.optimizers.SGD(0.1, momentum=0.9), decays.L2(0.2)
    )
    assert_equal(
        trained(optimizers.SGDW(0.1, weight_decay=0.2, momentum=0.9)),
        trained(spelled),
    )


def test_padam_is_what_it_spells():
    spelled = optimizers.WeightDecay(
        keras.optimizers.Adam(0.1), decays.Lp(0.2, p=0.7)
    )
    assert_equal(
        trained(optimizers.PAdam(0.1, weight_decay=0.2, p=0.7)),
        trained(spelled),
    )


def test_further_arguments_reach_the_inner_optimizer():
    optimizer = optimizers.PAdam(amsgrad=True, clipnorm=0.5, use_ema=True)
    assert optimizer.inner_optimizer.amsgrad
    assert optimizer.inner_optimizer.clipnorm == 0.5
    assert optimizer.use_ema and not optimizer.inner_optimizer.use_ema


def test_the_configuration_is_flat():
    config = optimizers.SGDW(0.5, nesterov=True, momentum=0.9).get_config()
    assert config["learning_rate"] == 0.5
    assert config["nesterov"] is True
    assert config["weight_decay"] == 5e-4
    assert "inner_optimizer" not in config


def test_biases_are_those_of_plain_adam():
    plain = trained(keras.optimizers.Adam(0.01), batches=1)
    ours = trained(optimizers.PAdam(0.01, weight_decay=0.5), batches=1)
    assert_equal(plain[1::2], ours[1::2])
    assert np.any(plain[0] != ours[0])


NAMED = (
    optimizers.SGDW,
    optimizers.PAdam,
    functools.partial(optimizers.PathProx, PAIR),
)


@pytest.mark.parametrize("make", NAMED)
def test_variables_have_the_same_paths_in_every_optimizer(make):
    # Orbax finds the state of a checkpoint by them.
    first, second, other = make(), make(), make(name="other")
    paths = [v.path for v in first.variables]
    assert paths == [v.path for v in second.variables]
    both = paths + [v.path for v in other.variables]
    assert len(set(both)) == len(both)


def test_the_variables_of_a_copy_have_the_same_paths():
    rules = decays.L2(0.1)
    for first in (
        *(make(name="other") for make in NAMED),
        optimizers.KFAC(0.1),
        optimizers.WeightDecay(optimizers.KFAC(0.1), rules),
    ):
        second = type(first).from_config(first.get_config())
        paths = [v.path for v in first.variables]
        assert paths == [v.path for v in second.variables]
