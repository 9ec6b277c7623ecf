import keras
import numpy as np
import pytest
from keras import ops

from keras_wd import ops as wd_ops
from tests import reference

ELEMENTWISE = {
    "lp_shrink": lambda w: wd_ops.lp_shrink(w, w, 1e-3, 0.8),
    "soft_threshold": lambda w: wd_ops.soft_threshold(w, 1e-3),
    "group_soft_threshold": lambda w: wd_ops.group_soft_threshold(w, 1e-3),
    "prox_lp": lambda w: wd_ops.prox_lp(w, 1e-3, 0.7),
    "project_to_sphere": lambda w: wd_ops.project_to_sphere(w, 2.0),
    "lp_gradient": lambda w: wd_ops.lp_gradient(w, 0.8),
    "lp_penalty": lambda w: wd_ops.lp_penalty(w, 0.8),
    "group_norm": lambda w: wd_ops.group_norm(w),
}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("name", sorted(ELEMENTWISE))
def test_the_result_has_the_dtype_of_the_weights(name, dtype):
    w = ops.cast(keras.random.normal((3, 4), seed=1), dtype)
    result = ELEMENTWISE[name](w)
    assert keras.backend.standardize_dtype(result.dtype) == dtype


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", sorted(ELEMENTWISE))
def test_low_precision_is_the_rounded_float32_result(name, dtype):
    w = ops.cast(keras.random.normal((3, 4), seed=1), dtype)
    result = ELEMENTWISE[name](w)
    exact = ops.cast(ELEMENTWISE[name](ops.cast(w, "float32")), dtype)
    np.testing.assert_array_equal(
        ops.convert_to_numpy(ops.cast(result, "float32")),
        ops.convert_to_numpy(ops.cast(exact, "float32")),
    )


def test_a_float32_strength_is_not_rounded_to_the_dtype_of_the_weights():
    w = ops.cast(ops.array([256.0]), "bfloat16")
    # In bfloat16 this strength would be 1 and the result 255.
    strength = ops.array(1.003, "float32")
    result = wd_ops.soft_threshold(w * 0 + 2, strength)
    expected = ops.cast(ops.array([2 - 1.003]), "bfloat16")
    assert float(result[0]) == float(expected[0])


def test_many_bfloat16_weights_are_summed_in_float32():
    # A bfloat16 sum stops growing at 256.
    w = ops.ones((4096, 1), "bfloat16")
    assert float(wd_ops.lp_penalty(w, 1.0)) == 4096.0
    assert float(wd_ops.group_norm(w)[0, 0]) == 64.0


def test_reference_of_the_elementwise_functions_in_bfloat16():
    w = ops.cast(keras.random.normal((64,), seed=2), "bfloat16")
    exact = ops.convert_to_numpy(ops.cast(w, "float32")).astype("float64")
    result = ops.convert_to_numpy(
        ops.cast(wd_ops.lp_shrink(w, w, 0.3, 1.2), "float32")
    )
    # bfloat16 has eight bits.
    np.testing.assert_allclose(
        result, reference.shrink_lp(exact, exact, 0.3, 1.2), rtol=2**-8
    )
