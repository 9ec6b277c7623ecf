"""How normalizations act on channels."""

import numpy as np

from keras_wd.graph.channels import Channels
from keras_wd.graph.channels import Classes
from keras_wd.graph.channels import NeedsAll
from keras_wd.graph.kernels import array
from keras_wd.graph.structure import Graph
from keras_wd.graph.structure import Step


def _last_axis_alone(graph, step):
    axis = step.operation.axis
    axes = axis if isinstance(axis, list | tuple) else [axis]
    if list(axes) not in ([-1], [len(graph.shapes[step.inputs[0]]) - 1]):
        raise NeedsAll(f"{step.path} does not normalize the last axis alone")


def through_root_mean_square(
    classes: Classes, graph: Graph, step: Step, read: Channels
) -> Channels:
    """Zeros count in the mean, but their number can be made up for."""
    _last_axis_alone(graph, step)
    zero = read.constants == 0
    classes.pin(
        read.labels[~zero], f"{step.path} divides by what it is a part of"
    )
    constants = np.where(zero, 0.0, np.nan)
    gains = np.abs(array(step.operation.scale))
    return read.with_gains(constants, gains, bounded=False)


def through_groups(
    classes: Classes, graph: Graph, step: Step, read: Channels
) -> Channels:
    """A group of channels is normalized by itself, and can go as a whole."""
    layer = step.operation
    if layer.axis not in (-1, len(graph.shapes[step.inputs[0]]) - 1):
        raise NeedsAll(f"{step.path} does not normalize the last axis")
    count = len(read) if layer.groups == -1 else layer.groups
    labels = read.labels.reshape(count, -1)
    for other in labels.T[1:]:
        classes.join(labels[:, 0], other)
    values = read.constants.reshape(count, -1)
    same = (values == values[:, :1]).all(axis=1)
    shift = array(layer.beta) if layer.center else np.zeros(len(read))
    same = np.repeat(same, labels.shape[1])
    constants = np.where(same, shift, np.nan)
    gains = np.abs(array(layer.gamma)) if layer.scale else np.ones(len(read))
    return read.with_gains(constants, gains, bounded=False)


def batch_normalized(graph: Graph, step: Step, read: Channels) -> Channels:
    """Every channel is scaled and shifted by itself."""
    layer = step.operation
    if layer.axis not in (-1, len(graph.shapes[step.inputs[0]]) - 1):
        raise NeedsAll(f"{step.path} does not normalize the last axis")
    scale = 1 / np.sqrt(array(layer.moving_variance) + layer.epsilon)
    if layer.scale:
        scale = scale * array(layer.gamma)
    shift = array(layer.beta) if layer.center else np.zeros(len(read))
    centered = read.constants - array(layer.moving_mean)
    constants = np.where(scale == 0, 0.0, centered * scale) + shift
    return read.with_gains(constants, read.gains * np.abs(scale))
