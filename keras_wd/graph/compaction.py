"""Networks that really become smaller."""

import keras
import numpy as np
from keras import layers

from keras_wd.errors import check_number
from keras_wd.graph import traits
from keras_wd.graph.channel_rules import is_grouped
from keras_wd.graph.channel_rules import is_weighted
from keras_wd.graph.compaction_report import LayerReport
from keras_wd.graph.compaction_report import Report
from keras_wd.graph.edits import edits
from keras_wd.graph.edits import masked
from keras_wd.graph.inside import look_inside
from keras_wd.graph.litert import check_litert
from keras_wd.graph.litert import measured
from keras_wd.graph.rebuild import rebuild
from keras_wd.graph.removal import Removal
from keras_wd.graph.removal import names
from keras_wd.graph.removal import plan_removal
from keras_wd.graph.saving import in_its_class
from keras_wd.graph.saving import savable
from keras_wd.graph.saving import unreadable
from keras_wd.graph.sizes import measure
from keras_wd.graph.sizes import milliseconds
from keras_wd.graph.sizes import not_counted
from keras_wd.graph.sizes import units_of
from keras_wd.graph.structure import read
from keras_wd.graph.verify import examples
from keras_wd.graph.verify import verify


def compact(
    model: keras.Model,
    threshold: float = 0.0,
    report: bool = False,
    x: object = None,
    batch_size: int | None = 256,
    litert: bool = False,
) -> keras.Model | tuple[keras.Model, Report]:
    """The same function with smaller layers, without the units that are dead.

    A unit (of a Dense or convolution layer) is dead if nothing it computes is
    used: everything that reads it has zero weights for it, or is dead itself.
    It is also dead if it is a constant because its input weights are zero;
    that constant is added to the biases of the layers that read it (which get
    a bias if they have none). Where a convolution with zero padding reads a
    constant that is not zero, the unit stays: at the border it is no
    constant.

    Dead units are removed with their kernels and biases, the statistics of
    batch normalizations, depthwise kernels, PReLU slopes, and the rows of the
    layers that read them, behind `Flatten` too; through residual joins where
    all branches agree. Every layer keeps at least one unit. A layer that
    needs all its channels (a softmax, a layer normalization, anything not
    known) keeps them, and the report says so.

    Inside of layers of other classes, as those of KerasHub, units go where an
    entry of the configuration says how many there are, such as
    `intermediate_dim`: the layer is made again with a smaller one, keeps its
    class and is compared with what it was. Heads go too where it has their
    size apart from their number. What it shares one entry among
    keeps as many units as the member that needs most.

    Args:
        model: a built Sequential or Functional model, nested or not. It is
            not changed.
        threshold: units whose path product is at most this are removed too:
            the norm of the input weights, times what batch normalizations and
            depthwise kernels scale them by, times the norm of the output
            weights; summed over the layers that read the unit. The output of
            each moves by at most that much times the norm of the input.
        report: also return a `Report` of what changed: units, parameters,
            multiply-adds, file size, sparse sizes and measured latency. It
            is printable, and its fields are plain data. To time both models
            costs two predictions to compile, and then up to fifteen, each.
        x: a batch of inputs, to compare both models on and to time; random
            ones of the kinds that the model takes for None.
        batch_size: examples of the random batch that the report times; None
            for no timing.
        litert: with `report=True`, also export both models to LiteRT, check
            that they have the same outputs there, and report the sizes of
            the files and the times of the same batch on one thread. Needs
            TensorFlow and `ai-edge-litert`.

    Returns:
        A new model, not compiled, because the state of an optimizer does not
        fit smaller weights (unless its class compiles itself); `model` itself
        if no unit is dead. With `report=True`, the pair of it and the report.
        It has the class of `model`. If that says itself how it is built or
        saved, as a backbone of KerasHub, it has so only where its
        configuration can say how small the new one is, and is made from that;
        else it is a Functional model, whose layers share the functions,
        regularizers and vocabularies of the old ones, and no variable. Warns
        if a file of it cannot be loaded because a layer is not made again
        from what its `get_config` says.

    Raises:
        ValueError: if the structure of the model cannot be read, if
            `threshold` is not a number >= 0, or if the new model does not
            compute what the old one does (with the units below the threshold
            taken for zero): then there is no new model. With `litert=True`,
            if LiteRT is not installed, or a model cannot be exported or
            computes something else there.

    >>> import keras
    >>> from keras_wd import graph
    >>> model = keras.Sequential([
    ...     keras.Input((4,)),
    ...     keras.layers.Dense(8, "relu", name="hidden"),
    ...     keras.layers.Dense(2, name="output"),
    ... ])
    >>> kernel, bias = model.get_layer("hidden").get_weights()
    >>> kernel[:, :5] = 0
    >>> model.get_layer("hidden").set_weights([kernel, bias])
    >>> graph.compact(model).get_layer("hidden").units
    3
    """
    threshold = check_number("threshold", threshold, minimum=0)
    check_litert(litert, report)
    graph = read(model)
    smaller, masked, removal, inside = _without(model, graph, threshold, x)
    smaller = savable(model, smaller, masked, x)
    if not report:
        return smaller
    rows = _layers(removal, inside)
    return smaller, _report(model, smaller, graph, rows, x, batch_size, litert)


def without_dead_units(model: keras.Model, x: object = None) -> keras.Model:
    """The smaller model, verified, as layers; `model` if no unit is dead."""
    return _without(model, read(model), 0.0, x)[0]


def _without(model, graph, threshold, x):
    """The smaller model, what it computes the same as, and what goes."""
    removal = plan_removal(graph, threshold)
    inside = look_inside(removal.analysis, threshold)
    try:
        made = _smaller(model, graph, removal, inside, x)
    except ValueError:
        if not any(i.smaller for i in inside):
            raise
        # A layer inside may be more than its configuration says.
        inside = [i.left_whole() for i in inside]
        made = _smaller(model, graph, removal, inside, x)
    return *made, removal, inside


def _smaller(model, graph, removal, inside, x):
    """The smaller model, and the one of the old size that it is like."""
    changed = {i.step.path: i.smaller for i in inside if i.smaller}
    if removal.is_empty and not changed:
        return model, model
    smaller = rebuild(model, {**edits(removal), **changed})
    dead = {i.step.path: i.whole for i in inside if i.whole}
    if any(map(len, removal.dead.values())):
        dead |= masked(removal)
    whole = rebuild(model, dead) if dead else model
    verify(whole, smaller, graph, x)
    return smaller, whole


def report_of(
    model: keras.Model,
    smaller: keras.Model,
    masked: keras.Model,
    x: object,
    batch_size: int | None,
    litert: bool,
) -> Report:
    """The report of a model that was made smaller after it was masked."""
    graph = read(masked)
    removal = plan_removal(graph, 0.0)
    rows = _layers(removal, look_inside(removal.analysis, 0.0))
    return _report(model, smaller, graph, rows, x, batch_size, litert)


def _report(model, smaller, graph, rows, x, batch_size, litert):
    # A copy, so that neither file nor latency includes an optimizer, and
    # nothing of the given model is compiled.
    whole = in_its_class(model, rebuild(model, {}), model, x)
    models = {"before": whole}
    if smaller is not model:
        models["after"] = smaller
    served = {}
    if litert:
        batch = examples(whole, graph, batch_size or 4) if x is None else x
        timed = x is not None or batch_size is not None
        served = measured(models, batch, timed)
    times, batch_size = _times(models, graph, x, batch_size)
    before_sizes = after_sizes = measure(whole, graph)
    if smaller is not model:
        after_sizes = measure(smaller, read(smaller))
    return Report(
        layers=rows,
        before=before_sizes,
        after=after_sizes,
        batch_size=batch_size,
        milliseconds_before=times["before"],
        milliseconds_after=times.get("after", times["before"]),
        not_counted=tuple(not_counted(graph)),
        litert_before=served.get("before"),
        litert_after=served.get("after", served.get("before")),
        unreadable=unreadable(smaller),
    )


def _times(models, graph, x, batch_size):
    """Latencies by model, and the examples of the batch they are of."""
    nothing = {"before": None}, None
    if x is None:
        if batch_size is None or any(
            None in graph.shapes[tensor][1:]
            for step in graph.steps
            if not step.inputs
            for tensor in step.outputs
        ):
            return nothing
        x = examples(models["before"], graph, batch_size)
    return milliseconds(models, x), len(keras.tree.flatten(x)[0])


def _layers(removal: Removal, inside: list) -> tuple[LayerReport, ...]:
    analysis, rows = removal.analysis, []
    weighted = {
        w.step: w.made
        for w in analysis.weighted
        if is_weighted(w.step.operation)
    }
    heads = {part.step: part.heads for part in analysis.heads}
    embedded = {
        along.step: along.made.labels
        for along in analysis.along
        if traits.is_exactly(along.step.operation, layers.Embedding)
        or is_grouped(along.step.operation)
    }
    made_by = {**weighted, **heads, **embedded}
    looked_into = {i.step.path: i for i in inside}
    reasons = _reasons_inside(removal, inside)
    seen = set()
    for step in analysis.graph.steps:
        if step.path in seen:
            continue
        seen.add(step.path)
        kind = type(step.operation).__name__
        if step in made_by:
            made = made_by[step]
            left = int(removal.kept[made].sum())
            note = _note(removal, step, made, reasons)
            rows.append(LayerReport(step.path, kind, len(made), left, note))
        elif step in analysis.opaque and getattr(step.operation, "weights", []):
            units = None
            if is_weighted(step.operation):
                units = units_of(step.operation)
            note = f"left whole: {analysis.opaque[step]}"
            rows.append(LayerReport(step.path, kind, units, units, note))
            inner = looked_into.pop(step.path, None)
            if inner is not None:
                rows += _layers_inside(inner)
    return tuple(rows)


def _layers_inside(inner):
    """Rows of the layers that another layer holds."""
    if inner.removal is None:
        note = f"left whole inside: {inner.reason}"
        kind = type(inner.step.operation).__name__
        return [LayerReport(inner.step.path, kind, None, None, note)]
    rows = []
    for row in _layers(inner.removal, []):
        after, note = row.units_after, row.note
        if inner.smaller is None:
            after = row.units_before
            note = f"left whole: {inner.reason}" if inner.reason else note
        path = f"{inner.step.path}/{row.layer.replace('.', '/')}"
        note = note.replace("of the model", f"of {inner.step.path}")
        if row.units_before is not None:
            rows.append(
                LayerReport(path, row.kind, row.units_before, after, note)
            )
    return rows


def _reasons_inside(removal, inside):
    """The reasons, of what layers read as their own layers say them."""
    reasons = dict(removal.reasons)
    for i in inside:
        plain = removal.analysis.opaque[i.step]
        for label in removal.analysis.labels_of(i.step.inputs[:1]):
            if i.entrance and reasons.get(label) == plain:
                reasons[label] = i.entrance
    return reasons


def _note(removal, step, made, reasons):
    reasons = names(made.tolist(), reasons)
    note = f"left whole: {'; '.join(reasons)}" if reasons else ""
    for weighted in removal.analysis.weighted:
        if weighted.step is step and getattr(step.operation, "bias", 0) is None:
            gone = ~removal.kept[weighted.read.labels]
            if np.nan_to_num(weighted.foldable[gone]).any():
                note = f"{note}; " if note else ""
                note += "its rows of constant inputs went into a bias"
    return note
