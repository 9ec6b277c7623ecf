import keras
import numpy as np
import pytest
from keras import ops

from keras_wd import decays
from keras_wd import optimizers
from keras_wd import where
from tests import reference
from tests.training import take_steps
from tests.training import variables

P = [0.5, 0.8, 1.0, 1.5, 2.0, 3.0]


def kernel(values, dtype=None):
    layer = keras.layers.Dense(
        len(values[0]), use_bias=False, name="head", dtype=dtype
    )
    layer.build((None, len(values)))
    layer.kernel.assign(ops.cast(ops.array(values), layer.kernel.dtype))
    return layer.kernel


@pytest.mark.parametrize("p", [0.0, -1.0, float("nan"), "2", None])
def test_lp_rejects_an_exponent_that_is_not_positive(p):
    with pytest.raises(
        ValueError, match="`p` must be a finite number > 0"
    ) as e:
        decays.Lp(0.1, p=p)
    assert f"Received: p={p!r}" in str(e.value)


@pytest.mark.parametrize("p", [0.09, 4.1, float("inf")])
def test_proximal_lp_rejects_an_exponent_out_of_range(p):
    expected = "`p` must be a finite number >= 0.1 and <= 4"
    with pytest.raises(ValueError, match=expected) as error:
        decays.ProximalLp(0.1, p=p)
    assert f"Received: p={p!r}" in str(error.value)


def test_proximal_lp_has_no_coupled_form_and_names_the_way_out():
    with pytest.raises(ValueError, match=r"decays\.Lp\(\.\.\., coupling") as e:
        decays.ProximalLp(0.1, p=0.5, coupling="coupled")
    assert "Received: coupling='coupled'" in str(e.value)


def test_the_exponent_must_be_given():
    with pytest.raises(TypeError, match="'p'"):
        decays.Lp(0.1)


@pytest.mark.parametrize("p", [0.5, 1.0, 1.9])
@pytest.mark.parametrize("coupling", ["decoupled", "independent"])
def test_a_zero_variable_is_refused_with_its_path(p, coupling):
    zero, other = kernel([[0.0, 0.0]]), kernel([[1.0, 0.0]])
    optimizer = optimizers.WeightDecay(
        keras.optimizers.SGD(0.1), decays.Lp(0.1, p=p, coupling=coupling)
    )
    with pytest.raises(ValueError) as error:
        optimizer.build([other, zero])
    assert "must select variables that are not all zero" in str(error.value)
    assert f"p={p:g} < 2" in str(error.value)
    assert f"which selects {zero.path}" in str(error.value)
    assert "& ~where.paths('head/kernel')" in str(error.value)


@pytest.mark.parametrize(
    "decay",
    [
        decays.Lp(0.1, p=2.0),
        decays.Lp(0.1, p=3.0),
        decays.Lp(0.1, p=0.5, coupling="coupled"),
        decays.ProximalLp(0.1, p=0.5),
        decays.L1(0.1),
    ],
    ids=["p=2", "p=3", "coupled", "proximal", "l1"],
)
def test_a_zero_variable_is_fine_where_it_can_leave_zero(decay):
    zero = kernel([[0.0, 0.0]])
    optimizer = optimizers.WeightDecay(keras.optimizers.SGD(1.0), decay)
    optimizer.apply([ops.array([[-2.0, 3.0]])], [zero])
    assert np.all(zero.numpy() != 0)


def test_a_zero_variable_that_is_not_selected_is_fine():
    zero, other = kernel([[0.0, 0.0]]), kernel([[1.0, 1.0]])
    bias = keras.Variable([0.0, 0.0], name="bias")
    decay = decays.Lp(0.1, p=0.5, where=where.kernels())
    optimizer = optimizers.WeightDecay(keras.optimizers.SGD(0.1), decay)
    optimizer.build([other, bias])
    assert optimizer.built
    decay.check([other])
    with pytest.raises(ValueError, match="not all zero"):
        decay.check([other, zero])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_low_precision_variables_can_be_checked(dtype):
    decay = decays.Lp(0.1, p=0.5)
    decay.check([kernel([[1.0, 0.0]], dtype)])
    with pytest.raises(ValueError, match="not all zero"):
        decay.check([kernel([[0.0, 0.0]], dtype)])


def test_lp_two_is_l2_to_second_order():
    w, s = ops.array([[1.0, -3.0]]), ops.array(1e-4)
    (lp,) = decays.Lp(1.0, p=2).shrink([w], [w], s)
    (l2,) = decays.L2(1.0).shrink([w], [w], s)
    # 1 / (1 + s) = 1 - s + s^2 ...
    np.testing.assert_allclose(
        ops.convert_to_numpy(lp), ops.convert_to_numpy(l2), rtol=2e-7
    )


@pytest.mark.few_cases(3)
@pytest.mark.parametrize("p", P)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_decay_does_not_depend_on_the_scale_of_the_loss(p, scale):
    # Decoupled: Adam's step forgets the scale, and so must the decay.
    ends = []
    for factor in (1.0, scale):
        w = kernel([[1.0, -0.5]])
        optimizer = optimizers.WeightDecay(
            keras.optimizers.Adam(0.01, epsilon=0.0), decays.Lp(0.5, p=p)
        )
        for _ in range(3):
            optimizer.apply([factor * ops.array([[0.3, 0.7]])], [w])
        ends.append(w.numpy())
    np.testing.assert_allclose(ends[1], ends[0], rtol=1e-6)


def test_zeros_of_lp_stay_and_zeros_of_the_proximal_step_may_leave():
    ends = {}
    for kind in (decays.Lp, decays.ProximalLp):
        w = kernel([[0.0, 1.0]])
        optimizer = optimizers.WeightDecay(
            keras.optimizers.SGD(0.1), kind(0.01, p=0.5)
        )
        optimizer.apply([ops.array([[-5.0, -5.0]])], [w])
        ends[kind.__name__] = w.numpy()[0]
    assert ends["Lp"][0] == 0 and ends["Lp"][1] > 1
    assert ends["ProximalLp"][0] > 0.4


@pytest.mark.weekly(reason="trains to convergence")
@pytest.mark.one_backend
def test_the_lower_the_exponent_the_sparser_the_weights():
    start = np.linspace(0.01, 1.0, 100, dtype="float32")[None]
    shares = []
    for p in P:
        w = kernel(start.tolist())
        optimizer = optimizers.WeightDecay(
            keras.optimizers.SGD(0.1), decays.Lp(0.05, p=p)
        )
        for _ in range(60):
            optimizer.apply([ops.zeros(w.shape)], [w])
        shares.append(np.mean(np.abs(w.numpy()) < 1e-13))
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0.2 and shares[-1] == 0


# The optimizers in the code of the authors of pAdam, with `lambda_p` x; their
# `lambda_p` of the p-norm is our rate over p.
X, Y = 0.4, 0.3
AUTHORS = {
    "PAdam": (
        decays.Lp(0.8 * X, p=0.8),
        lambda w, before, lr: reference.shrink_lp(w, before, 0.8 * lr * X, 0.8),
    ),
    "PAdam_late": (
        decays.Lp(0.8 * X, p=0.8, late=True),
        lambda w, before, lr: reference.shrink_lp(w, w, 0.8 * lr * X, 0.8),
    ),
    "AdamL3_2": (
        decays.ProximalLp(X, p=1.5),
        lambda w, before, lr: reference.adam_l3_2(w, lr * X),
    ),
    "Adam_L1": (
        [decays.L1(X), decays.Lp(Y, p=2)],
        lambda w, before, lr: (
            reference.soft_threshold(w, lr * X) / (1 + lr * Y)
        ),
    ),
}


@pytest.mark.parametrize("decay, shrink", AUTHORS.values(), ids=AUTHORS)
def test_the_optimizers_of_the_authors_of_padam(decay, shrink):
    rng = np.random.default_rng(0)
    start = rng.normal(size=(4, 3)).astype("float32")
    steps = [[rng.normal(size=(4, 3)).astype("float32")] for _ in range(5)]
    adam = keras.optimizers.Adam(0.1, epsilon=1e-8)
    optimizer = optimizers.WeightDecay(adam, decay)
    found = take_steps(optimizer, variables([start]), steps)
    inner, before = reference.Adam(epsilon=1e-8), np.float64(start)
    for grads, (after,) in zip(steps, found, strict=True):
        (stepped,) = inner.step([before], grads, 0.1)
        before = shrink(stepped, before, 0.1)
        np.testing.assert_allclose(after, before, rtol=2e-4, atol=2e-6)


def test_a_late_decay_reads_the_weights_after_the_step():
    # The step takes the first weight to zero, where it stays.
    late = optimizers.WeightDecay(
        keras.optimizers.SGD(1.0), decays.Lp(0.1, p=0.8, late=True)
    )
    ((after,),) = take_steps(
        late, variables([[[1.0, 1.0]]]), [[np.float32([[1.0, 0.5]])]]
    )
    assert after[0, 0] == 0
    assert after[0, 1] == pytest.approx(0.5 / (1 + 0.1 * 0.5**-1.2), rel=1e-5)
    assert optimizers.PAdam(late=True).decay.late
    with pytest.raises(ValueError, match="`late` must be False for a coupled"):
        decays.Lp(0.1, p=0.8, late=True, coupling="coupled")
