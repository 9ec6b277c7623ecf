"""Which units can go: the ones nothing depends on, and constants."""

import dataclasses
from collections.abc import Iterable

import numpy as np

from keras_wd.graph.channel_analysis import ChannelAnalysis
from keras_wd.graph.channel_rules import is_weighted
from keras_wd.graph.channels import Weighted
from keras_wd.graph.structure import Graph


@dataclasses.dataclass(frozen=True, eq=False)
class Removal:
    """What is removed from a graph.

    Attributes:
        analysis: the labels of all channels.
        kept: `(labels,)` whether a unit stays.
        reasons: by label, why its class has to stay.
        dead: positions of units whose input weights are taken for zero, by
            the name of their layer.
    """

    analysis: ChannelAnalysis
    kept: np.ndarray
    reasons: dict[int, str]
    dead: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """Whether every unit stays."""
        return bool(self.kept.all())


def plan_removal(graph: Graph, threshold: float) -> Removal:
    """The units that can be removed without changing what a graph computes.

    A unit is not needed if everything that reads it has zero weights for it,
    or is itself not needed; or if it is a constant that all its readers can
    add to their biases. Units whose path product is at most `threshold` are
    treated as if their input weights were zero, unless they cannot be
    removed even then.
    """
    dead = {}
    if threshold > 0:
        dead = _below(ChannelAnalysis(graph, {}), threshold)
    while True:
        analysis = ChannelAnalysis(graph, dead)
        removal = _needed(analysis)
        refuted = False
        for weighted in with_own_units(analysis):
            positions = dead.get(weighted.step.path)
            if positions is None:
                continue
            stays = removal.kept[weighted.made[positions]]
            refuted = refuted or stays.any()
            dead[weighted.step.path] = positions[~stays]
        if not refuted:
            return dataclasses.replace(removal, dead=dead)


def path_products(analysis: ChannelAnalysis, bound: bool = False) -> np.ndarray:
    """By label that stands for a class: the path product of its units.

    Args:
        analysis: the channels.
        bound: whether it has to bound what the outputs move by. Then it is
            infinite where nothing is known to.
    """
    roots = analysis.classes.roots()
    products = np.zeros(len(roots))
    for weighted in analysis.weighted:
        read = weighted.read
        squares = np.square(weighted.kernel).sum(axis=(0, 2))
        used = squares > 0
        gains = read.gains
        if bound:
            gains = np.where(read.bounded, gains, np.inf)
        squares[used] *= np.square(gains[used])
        per_class = np.zeros(len(roots))
        np.add.at(per_class, roots[read.labels], squares)
        products += np.sqrt(per_class)
    return products


def _below(analysis, threshold):
    """Positions of the units with a small path product, by layer."""
    roots = analysis.classes.roots()
    products = path_products(analysis, bound=True)
    products[list(analysis.classes.reasons())] = np.inf
    small = products <= threshold
    return {
        weighted.step.path: np.flatnonzero(small[roots[weighted.made]])
        for weighted in with_own_units(analysis)
    }


def with_own_units(analysis: ChannelAnalysis) -> list[Weighted]:
    """The layers whose kernels have the units on the last axis, each once."""
    return list(
        {
            id(weighted.step.operation): weighted
            for weighted in analysis.weighted
            if is_weighted(weighted.step.operation)
        }.values()
    )


def _needed(analysis):
    roots = analysis.classes.roots()
    reasons = analysis.classes.reasons()
    live = np.zeros(len(roots), dtype=bool)
    live[list(reasons)] = True
    _spread(analysis, roots, live)
    # A layer keeps at least one unit: Keras has no layers without any. What
    # it computes does not matter, so what it reads need not stay.
    kept = live.copy()
    for made in analysis.made:
        if len(made) and not kept[roots[made]].any():
            kept[roots[made[0]]] = True
    by_label = {
        label: reasons[root]
        for label, root in enumerate(roots.tolist())
        if root in reasons
    }
    return Removal(analysis, kept[roots], by_label)


def _spread(analysis, roots, live):
    """Mark everything that the marked units depend on."""
    count = -1
    while count != live.sum():
        count = live.sum()
        for weighted in reversed(analysis.weighted):
            units = live[roots[weighted.made]]
            kernel = weighted.kernel[:, :, units]
            used = (kernel != 0).any(axis=(0, 2)) & np.isnan(weighted.foldable)
            live[roots[weighted.read.labels[used]]] = True


def names(labels: Iterable[int], reasons: dict[int, str]) -> list[str]:
    """The distinct reasons among labels, in order."""
    return list(
        dict.fromkeys(reasons[label] for label in labels if label in reasons)
    )
