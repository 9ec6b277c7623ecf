"""Decays: rules that shrink weights, combined with any optimizer.

A training step is the inner optimizer, then the decays. A decay is a *rule*
(what happens to a weight) at a *rate* (how strongly at step t), *where* it
acts (which variables), with a *coupling* (how it joins the gradient step):

    AdamW      WeightDecay(Adam(...), L2(0.004, where=everything()))
    Adam + L2  the same with coupling="coupled"
    pAdam      WeightDecay(Adam(...), Lp(1e-3, p=0.8))
"""

from keras_wd.decays.decay import Decay
from keras_wd.decays.decay import SeparableDecay
from keras_wd.decays.group_lasso import GroupLasso
from keras_wd.decays.l1_l2 import L1
from keras_wd.decays.l1_l2 import L2
from keras_wd.decays.lp import Lp
from keras_wd.decays.lp import ProximalLp
from keras_wd.decays.norm_control import CPR
from keras_wd.decays.norm_control import NormControl
from keras_wd.decays.path_norm import PathNorm
from keras_wd.decays.spheres import Hyperball
from keras_wd.decays.spheres import RadialBrake
from keras_wd.decays.units import HomogeneousUnits

__all__ = [
    "CPR",
    "Decay",
    "GroupLasso",
    "HomogeneousUnits",
    "Hyperball",
    "L1",
    "L2",
    "Lp",
    "NormControl",
    "PathNorm",
    "ProximalLp",
    "RadialBrake",
    "SeparableDecay",
]
