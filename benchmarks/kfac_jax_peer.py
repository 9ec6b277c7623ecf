"""kfac-jax's side of `kfac_step.py`; runs in an environment of its own.

    python benchmarks/kfac_jax_peer.py NETWORK CURVATURE INVERSES BATCH_SIZE

Needs kfac-jax 0.0.8 and jax < 0.7. Reads a number of steps per line and
answers with the seconds they took.
"""

import sys
import time

import jax
import kfac_jax
import kfac_networks
import numpy as np
from jax import numpy as jnp


def initial(name):
    rng = np.random.default_rng(0)
    _, shape, layers = kfac_networks.NETWORKS[name]
    parameters = []
    for kind, width in [*layers, ("dense", kfac_networks.CLASSES)]:
        if kind == "dense":
            size = (int(np.prod(shape)), width)
            shape = (width,)
        else:
            size = (3, 3, shape[-1], width)
            shape = (-(-shape[0] // 2), -(-shape[1] // 2), width)
        scale = np.sqrt(2 / np.prod(size[:-1]))
        weight = (scale * rng.normal(size=size)).astype("float32")
        parameters.append((jnp.array(weight), jnp.zeros(width)))
    return parameters


def loss(parameters, batch):
    x, y = batch
    for i, (w, b) in enumerate(parameters):
        if w.ndim == 4:
            x = jax.lax.conv_general_dilated(
                x, w, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            x = x + b
        else:
            x = x.reshape(len(x), -1) if x.ndim > 2 else x
            x = x @ w + b
        if i + 1 < len(parameters):
            x = jax.nn.relu(x)
    kfac_jax.register_softmax_cross_entropy_loss(x, y)
    log_p = jax.nn.log_softmax(x)
    return -jnp.take_along_axis(log_p, y[:, None], axis=1).mean()


def main():
    name, curvature, inverse, size = sys.argv[1], *map(int, sys.argv[2:])
    optimizer = kfac_jax.Optimizer(
        value_and_grad_func=jax.value_and_grad(loss),
        l2_reg=0.0,
        learning_rate_schedule=lambda _: kfac_networks.LEARNING_RATE,
        momentum_schedule=lambda _: kfac_networks.MOMENTUM,
        damping_schedule=lambda _: kfac_networks.DAMPING,
        curvature_ema=kfac_networks.EMA,
        curvature_update_period=curvature,
        inverse_update_period=inverse,
        estimation_mode="fisher_gradients",
        num_burnin_steps=0,
        multi_device=False,
    )
    batch = tuple(map(jnp.array, kfac_networks.batch(name, size)))
    key = jax.random.PRNGKey(0)
    parameters = initial(name)
    state = optimizer.init(parameters, key, batch)
    for line in sys.stdin:
        start = time.perf_counter()
        for _ in range(int(line)):
            key, used = jax.random.split(key)
            parameters, state, stats = optimizer.step(
                parameters, state, used, batch=batch, global_step_int=None
            )
        float(stats["loss"])
        jax.block_until_ready(parameters)
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main()
