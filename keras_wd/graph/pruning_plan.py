"""Which units go first, and how many of them keep a budget."""

import itertools
import operator
from collections.abc import Sequence

import keras
import numpy as np

from keras_wd.graph.channel_analysis import ChannelAnalysis
from keras_wd.graph.compaction import without_dead_units
from keras_wd.graph.edits import without_rows
from keras_wd.graph.followed import Followed
from keras_wd.graph.followed import followed_in
from keras_wd.graph.importance import Importance
from keras_wd.graph.importance import scores
from keras_wd.graph.rebuild import Edit
from keras_wd.graph.rebuild import rebuild
from keras_wd.graph.sizes import multiply_adds as count_of_multiply_adds
from keras_wd.graph.sizes import multiply_adds_of
from keras_wd.graph.structure import read

# Of a layer. Scores are compared across layers, and could take one alone.
MAX_RATIO = 0.9


class Plan:
    """Which classes of units of a model can go, in what order.

    Labels are those of the model, and behind them those inside of layers of
    other classes.

    Args:
        model: which is read.
        importance: see `prune`.
        round_to: see `prune`.
        data: see `prune`.
        max_ratio: see `prune`.
        followed: the layers of an earlier plan of the model, which takes
            seconds to follow them; found for None.

    Attributes:
        order: the labels that stand for the classes, first those that nothing
            reads, then the least important; last those that `max_ratio` keeps.
        most: how many of them may go.
    """

    def __init__(
        self,
        model: keras.Model,
        importance: Importance,
        round_to: int,
        data: object,
        max_ratio: float = MAX_RATIO,
        followed: Sequence[Followed] | None = None,
    ):
        self.model = model
        self.graph = read(model)
        self.analysis = ChannelAnalysis(self.graph, {})
        if followed is None:
            followed = followed_in(self.analysis)
        else:
            for layer in followed:
                layer.refresh()
        self.followed = [layer for layer in followed if layer.sizes]
        inside = [ChannelAnalysis(one.graph, {}) for one in self.followed]
        self._analyses = [self.analysis, *inside]
        counts = [analysis.classes.count for analysis in self._analyses]
        self._starts = np.cumsum([0, *counts[:-1]])
        self._roots = np.concatenate(
            [
                analysis.classes.roots() + start
                for analysis, start in self._numbered()
            ]
        )
        self._round_to = round_to
        self._max_ratio = max_ratio
        # What one number says how many there are keeps as many.
        self._alike = [[made] for made in self.analysis.made]
        for layer, start in zip(self.followed, self._starts[1:], strict=True):
            self._alike += [
                [made + start for made in members] for members in layer.sizes
            ]
        found = np.concatenate(scores(model, self._analyses, importance, data))
        free = np.zeros(len(self._roots), dtype=bool)
        for made in itertools.chain(*self._alike):
            free[self._roots[made]] = True
        for analysis, start in self._numbered():
            free[start + np.array([*analysis.classes.reasons()], int)] = False
        free &= np.isfinite(found)
        labels = np.flatnonzero(free)
        used = self._read_by_something()
        self._scores = np.where(used, found, -np.inf)
        kept = self._kept(free, max_ratio)[labels]
        self.order = labels[np.lexsort((self._scores[labels], kept))]
        self.most = int((~kept).sum())

    def _numbered(self):
        """What was read, and the number of its first label."""
        return zip(self._analyses, self._starts, strict=True)

    def check(self) -> None:
        """Raise if no unit may go."""
        if not len(self.order):
            raise ValueError(
                "`model` must have units that can be removed. Received: "
                f"model={self.model.name!r} without any. "
                "keras_wd.graph.compact(model, report=True) says why. Units "
                "inside of layers of other classes go for a `ratio` or a "
                "`latency`, not for `multiply_adds`."
            )

    @property
    def advice(self) -> str:
        """Which arguments let more be removed, as the end of a message."""
        arguments = []
        if self._max_ratio < 1:
            arguments.append("larger `max_ratio`")
        if self._round_to > 1:
            arguments.append("smaller `round_to`")
        if not arguments:
            return ""
        return f" A {' or a '.join(arguments)} allows more."

    def _kept(self, free, max_ratio):
        """By label that stands for a class, whether a layer needs it.

        The most important of its units, of those that something reads and
        that do not stay anyway.
        """
        kept = np.zeros(len(self._roots), dtype=bool)
        # What a small layer keeps, a larger one that shares it has as well.
        for made in sorted(itertools.chain(*self._alike), key=len):
            roots = self._roots[made]
            may_go = free[roots] & ~kept[roots]
            # 0.29 * 100 is a little less than 29.
            most = int(max_ratio * len(made) + 1e-9)
            wanted = may_go.sum() - most
            roots = roots[may_go & (self._scores[roots] > -np.inf)]
            order = np.argsort(-self._scores[roots], kind="stable")
            kept[roots[order[: max(wanted, 0)]]] = True
        return kept

    def _read_by_something(self):
        """By label that stands for a class, whether a row of it is not 0."""
        used = np.zeros(len(self._roots), dtype=bool)
        for analysis, start in self._numbered():
            for weighted in analysis.weighted:
                rows = (weighted.kernel != 0).any(axis=(0, 2))
                labels = weighted.read.labels[rows] + start
                used[self._roots[labels]] = True
        return used

    def lowest(self, count: int) -> np.ndarray:
        """By label, whether it goes with so many classes, rounded."""
        removed = np.zeros(len(self._roots), dtype=bool)
        removed[self.order[: min(count, self.most)]] = True
        changed = True
        while changed:
            changed = False
            for members in self._alike:
                wanted = max(self._rounded(removed, made) for made in members)
                for made in members:
                    changed |= self._bring_back(removed, made, wanted)
        return removed[self._roots]

    def _rounded(self, removed, made):
        """How many of the units of a layer stay."""
        left = int((~removed[self._roots[made]]).sum())
        wanted = -(-max(left, 1) // self._round_to) * self._round_to
        return min(wanted, len(made))

    def _bring_back(self, removed, made, wanted):
        """Let so many units of a layer stay, the important; whether any."""
        classes, counts = np.unique(self._roots[made], return_counts=True)
        gone = removed[classes]
        left = int(counts[~gone].sum())
        order = np.argsort(-self._scores[classes[gone]], kind="stable")
        back = zip(classes[gone][order], counts[gone][order], strict=True)
        changed = False
        for label, count in back:
            if left >= wanted:
                break
            removed[label] = False
            left += int(count)
            changed = True
        return changed

    def masked(self, removed: np.ndarray) -> keras.Model:
        """The model with nothing that reads the units that go."""
        edited, *inside = self._without(removed)
        for layer, inner in zip(self.followed, inside, strict=True):
            edited[layer.step.path] = Edit({}, {}, layer.values(inner))
        return rebuild(self.model, edited)

    def _without(self, removed, values=np.array):
        """What is different about the model, and inside of its layers."""
        return [
            without_rows(analysis, removed[start:], values)
            for analysis, start in self._numbered()
        ]

    def share(self, removed: np.ndarray) -> float:
        """Of the classes that can go, how many go."""
        return float(removed[self.order].mean())

    def masks(
        self, removed: np.ndarray
    ) -> list[tuple[keras.Variable, np.ndarray]]:
        """Variables of the model, and True where they read no such unit."""
        operations = {s.path: s.operation for s in self.graph.steps}
        edited, *inside = self._without(
            removed, lambda v: np.ones(v.shape, bool)
        )
        found = [
            (operator.attrgetter(name)(operations[path]), mask)
            for path, edit in edited.items()
            for name, mask in edit.arrays.items()
        ]
        for layer, inner in zip(self.followed, inside, strict=True):
            found += layer.masks(inner)
        return [(variable, mask) for variable, mask in found if not mask.all()]

    def pruned(self, removed: np.ndarray) -> keras.Model:
        """The smaller model, verified."""
        return without_dead_units(self.masked(removed))


def check_budget(plan: Plan, budget: float) -> None:
    """Raise a ValueError unless so few multiply-adds can remain.

    Args:
        plan: in which order classes go.
        budget: what may remain, as a share of the model's if it is at most 1.
    """
    whole, target = _whole_and_target(plan, budget)
    least = _estimate(plan, plan.lowest(plan.most))
    if least > target:
        raise ValueError(
            "`multiply_adds` must be what the layers that can shrink allow. "
            f"Received: multiply_adds={budget}, but {least:,} of {whole:,} "
            f"remain when all units that can be removed are.{plan.advice}"
        )


def count_within(plan: Plan, budget: float, done: float = 1.0) -> int:
    """How many classes go until few enough multiply-adds remain, or all.

    Args:
        plan: in which order they go.
        budget: see `check_budget`.
        done: the share of the way there, in [0, 1].

    Raises:
        ValueError: if the model has no fixed number of them.
    """
    whole, target = _whole_and_target(plan, budget)
    target = whole - done * (whole - target)
    low, high = 0, plan.most
    while low < high:
        middle = (low + high) // 2
        if _estimate(plan, plan.lowest(middle)) <= target:
            high = middle
        else:
            low = middle + 1
    return low


def _whole_and_target(plan, budget):
    """The multiply-adds of the model, and those that may remain."""
    whole = count_of_multiply_adds(plan.graph)
    if whole is None:
        raise ValueError(
            "`multiply_adds` must be of a model whose inputs have fixed "
            "sizes. Received: one that has not; give `ratio` instead."
        )
    return whole, budget * whole if budget <= 1 else budget


def _estimate(plan, removed):
    """The multiply-adds without some units."""
    total = count_of_multiply_adds(plan.graph)
    share = {}
    for weighted in plan.analysis.weighted:
        rows = (~removed[weighted.read.labels]).mean()
        units = (~removed[weighted.made]).mean()
        share.setdefault(weighted.step, []).append(rows * units)
    for along in plan.analysis.along:
        if len(along.read.labels):
            kept = (~removed[along.read.labels]).mean()
            share.setdefault(along.step, []).append(kept)
    for step, shares in share.items():
        whole = multiply_adds_of(plan.graph, step)
        total -= whole * (1 - float(np.mean(shares)))
    return round(total)
