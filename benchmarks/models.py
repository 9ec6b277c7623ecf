"""What `keras_wd.graph` makes of the models people have: docs/models.md.

Every model of keras.applications and tiny backbones of KerasHub, with random
weights. What `explain` claims is checked by scaling the weights, and what
`compact` makes by its outputs. In every Dense and convolution layer but the
last, the first quarter of the units is dead: their input weights are zero.

    python -m benchmarks models [--only NAME ...] [--largest MILLIONS]

Needs the extra `zoo`. Results are kept in build/models.jsonl, so that a run
goes on where the last one ended.
"""

import argparse
import collections
import gc
import inspect
import json
import pathlib
import re
import sys
import textwrap
import time
import unittest.mock

import keras
import markdown_tables
import numpy as np
from keras import layers

from keras_wd import graph
from keras_wd.graph import compaction
from keras_wd.graph import verify
from keras_wd.graph.channel_rules import ATTENTION
from keras_wd.graph.channel_rules import is_weighted
from keras_wd.graph.homogeneity import NORMALIZATIONS
from keras_wd.graph.kernels import array
from keras_wd.graph.structure import read

ROOT = pathlib.Path(__file__).parent.parent
RESULTS = ROOT / "build" / "models.jsonl"
PAGE = ROOT / "docs" / "models.md"
FACTORS = (64.0, 128.0)
# Factors are powers of two, so that most of the rounding is the same.
ROUNDING = 0.05

HEADER = """# Models that exist

Written by `python -m benchmarks models`: `keras_wd.graph` on every model of
`keras.applications` (small images, random weights{left_out}) and on tiny
backbones of KerasHub.

*Claims* are weights of which `graph.explain` says that decay acts on the
learning rate alone or on nothing; scaling them all by random factors changed
the outputs in training mode by less than 5 % (single precision, hundreds of
normalizations over four examples) in every row without a remark, and
scaling a sample of those that act on the function did change them. *Unknown*
are weights of which it does not say.

*Dead* are units of Dense and convolution layers whose input weights were set
to zero, the first quarter of every layer but the last, and heads of attention
whose output rows were, also a quarter; those that share a key are one.
*Reachable* are those that a smaller model of the same classes could be without.
Not so are units that

- are outputs of the model, or are joined, mostly by residual connections, to
  the input of a layer or to units that are used: only one of the layers that
  write to the channel is dead there;
- go into a layer normalization, whose mean is over all channels;
- are a part of a head of attention, of which all have one size, or heads of a
  layer whose configuration decides their size by their number.

*Removed* is how many `graph.compact` took out, and their share of those that
are reachable. The smaller model had the same outputs everywhere: `compact`
compares them itself and raises otherwise. It does so of EfficientNetV2L, whose
random weights let nothing be compared: inputs that differ by 1e-7 change its
outputs by 1.6 times their largest entry.
"""
COLUMNS = (
    *("model", "weights", "claims", "unknown", "dead", "reachable", "removed"),
    "the rest",
)

# Why no smaller model of the same classes is without a dead unit.
OUT_OF_REACH = (
    "output of the model",
    "joined to an input of",
    "read together with a unit that is used",
    "subtracts the mean over all channels",
    "splits the channels into",
    "heads of that size",
)

# Families whose smallest image is larger than 32 pixels.
IMAGE = {"InceptionV3": 75, "InceptionResNetV2": 75, "Xception": 71}


def applications():
    """(name, function that builds it) of all of keras.applications."""
    for name, build in sorted(vars(keras.applications).items()):
        if not inspect.isfunction(build):
            continue
        size = IMAGE.get(name, 32)
        yield name, lambda build=build, size=size: _application(build, size)


def _application(build, size):
    known = inspect.signature(build).parameters
    wanted = {
        "weights": None,
        "input_shape": (size, size, 3),
        "classes": 5,
        "classifier_activation": None,
        "include_top": "NASNet" not in build.__name__,
    }
    if not wanted["include_top"]:
        wanted["pooling"] = "avg"
    return build(**{k: v for k, v in wanted.items() if k in known})


def _text(kind, **arguments):
    return lambda hub: getattr(hub.models, kind)(
        **{
            "vocabulary_size": 50,
            "num_layers": 2,
            "num_heads": 2,
            "hidden_dim": 16,
            "intermediate_dim": 32,
            "max_sequence_length": 12,
            **arguments,
        }
    )


def _decoder(kind, **arguments):
    return lambda hub: getattr(hub.models, kind)(
        vocabulary_size=50,
        num_layers=2,
        num_query_heads=4,
        hidden_dim=16,
        intermediate_dim=32,
        num_key_value_heads=2,
        **arguments,
    )


BACKBONES = {
    "BertBackbone": _text("BertBackbone"),
    "RobertaBackbone": _text("RobertaBackbone"),
    "DistilBertBackbone": _text("DistilBertBackbone"),
    "ElectraBackbone": lambda hub: hub.models.ElectraBackbone(
        vocab_size=50,
        num_layers=2,
        num_heads=2,
        hidden_dim=16,
        embedding_dim=16,
        intermediate_dim=32,
        max_sequence_length=12,
    ),
    "FNetBackbone": lambda hub: hub.models.FNetBackbone(
        vocabulary_size=50,
        num_layers=2,
        hidden_dim=16,
        intermediate_dim=32,
        max_sequence_length=12,
    ),
    "GPT2Backbone": _text("GPT2Backbone"),
    "GPTNeoXBackbone": _text("GPTNeoXBackbone"),
    "OPTBackbone": _text("OPTBackbone"),
    "BloomBackbone": lambda hub: hub.models.BloomBackbone(
        vocabulary_size=50,
        num_layers=2,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
    ),
    "T5Backbone": lambda hub: hub.models.T5Backbone(
        vocabulary_size=50,
        num_layers=2,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
    ),
    "BartBackbone": _text("BartBackbone"),
    "LlamaBackbone": _decoder("LlamaBackbone"),
    "MistralBackbone": _decoder("MistralBackbone"),
    "QwenBackbone": _decoder("QwenBackbone"),
    "Qwen3Backbone": _decoder("Qwen3Backbone", head_dim=4),
    "GemmaBackbone": _decoder("GemmaBackbone", head_dim=4),
    "AlbertBackbone": lambda hub: hub.models.AlbertBackbone(
        vocabulary_size=50,
        num_layers=2,
        num_heads=2,
        embedding_dim=16,
        hidden_dim=16,
        intermediate_dim=32,
        max_sequence_length=12,
    ),
    "ViTBackbone": lambda hub: hub.models.ViTBackbone(
        image_shape=(32, 32, 3),
        patch_size=8,
        num_layers=2,
        num_heads=2,
        hidden_dim=16,
        mlp_dim=32,
    ),
    "ResNetBackbone": lambda hub: hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 128],
        stackwise_num_blocks=[1, 1],
        stackwise_num_strides=[1, 2],
        block_type="basic_block",
        image_shape=(32, 32, 3),
    ),
    "DenseNetBackbone": lambda hub: hub.models.DenseNetBackbone(
        stackwise_num_repeats=[2, 2],
        image_shape=(32, 32, 3),
        compression_ratio=0.5,
        growth_rate=8,
    ),
    "VGGBackbone": lambda hub: hub.models.VGGBackbone(
        stackwise_num_repeats=[1, 1],
        stackwise_num_filters=[8, 16],
        image_shape=(32, 32, 3),
    ),
}


def backbones():
    """(name, function that builds it) of KerasHub."""
    import keras_hub

    for name, build in BACKBONES.items():
        yield f"KerasHub {name}", lambda build=build: build(keras_hub)


def randomize(model):
    """Statistics and scales as after training; a dead channel stays zero."""
    rng = np.random.default_rng(0)
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, layers.Normalization) and hasattr(
            layer, "adapt_mean"
        ):
            layer.adapt(rng.normal(1, 2, (8, *model.input_shape[1:])))
        if isinstance(layer, layers.BatchNormalization):
            for variable in (layer.gamma, layer.moving_variance):
                if variable is not None:
                    variable.assign(rng.uniform(0.5, 1.5, variable.shape))


def kill(model):
    """Zero the first quarter of every layer; return how many, by layer.

    Of attention, the rows that read its heads, of all that share a key.
    """
    dead = {}
    last = {id(tensor._keras_history.operation) for tensor in model.outputs}
    for layer in model._flatten_layers(include_self=False):
        if type(layer) in ATTENTION:
            shared = getattr(layer, "num_key_value_heads", layer.num_heads)
            dead[layer] = kill_heads(layer._output_dense.kernel, 0, shared)
        for reader, axis, shared in written_out(layer):
            dead[reader] = kill_heads(reader.kernel, axis, shared)
        if not is_weighted(layer) or id(layer) in last:
            continue
        name = "kernel" if hasattr(layer, "kernel") else "pointwise_kernel"
        axis = -2 if "Transpose" in type(layer).__name__ else -1
        values = array(getattr(layer, name))
        values = np.moveaxis(values, axis, -1)
        count = values.shape[-1] // 4
        values[..., :count] = 0
        getattr(layer, name).assign(np.moveaxis(values, -1, axis))
        dead[layer] = count
    return dead


def kill_heads(kernel, axis, shared):
    """Zero the rows of a quarter of the heads; return how many can go alone.

    Args:
        kernel: which reads them.
        axis: of the heads.
        shared: the number of keys, each with the queries that share it.
    """
    values = array(kernel)
    count = -(-shared // 4)
    group = values.shape[axis] // shared
    np.moveaxis(values, axis, 0)[: count * group] = 0
    kernel.assign(values)
    return count


def written_out(layer):
    """(layer that reads heads, their axis, number of keys) of an attention.

    Of one that is written out in layers `EinsumDense`, by their equations.
    """
    if type(layer).__module__.split(".")[0] == "keras":
        return
    made, readers = [], []
    for part in layer._layers:
        if type(part) is not layers.EinsumDense or part.kernel.ndim != 3:
            continue
        before, kernel, after = re.split(",|->", part.equation)
        for letters, found in ((after, made), (before, readers)):
            if {*letters[-2:]} < {*kernel} and letters[-2] in kernel:
                other = before if letters is after else after
                if not {*letters[-2:]} & {*other}:
                    found.append((part, kernel.index(letters[-2])))
    if made and readers:
        keys = min(part.kernel.shape[axis] for part, axis in made)
        for part, axis in readers:
            # Where all share one key, it stays, and each query can go.
            yield part, axis, keys if keys > 1 else part.kernel.shape[axis]


def check_claims(model, explanation, x):
    """Raise if scaling the weights does not do what is said of them."""
    variables = {v.path: v for v in model.trainable_variables}
    claimed = [
        variables[row.weight]
        for row in explanation.weights
        if row.effect in ("learning rate", "nothing")
    ]
    function = [
        variables[row.weight]
        for row in explanation.weights
        if row.effect == "function" and array(variables[row.weight]).any()
    ]
    epsilons = {
        layer: layer.epsilon
        for layer in model._flatten_layers(include_self=False)
        if type(layer) in NORMALIZATIONS
    }
    for layer in epsilons:
        layer.epsilon = 1e-12  # else it counts beside small numbers
    rng = np.random.default_rng(1)
    for variable in model.trainable_variables:
        if not array(variable).any():  # as biases are before training
            variable.assign(rng.normal(0, 0.1, variable.shape))
    if claimed:
        random = {id(v): 2.0 ** rng.integers(3) for v in claimed}
        one = outputs(model, x, {id(v): FACTORS[0] for v in claimed})
        other = outputs(
            model, x, {k: FACTORS[1] * c for k, c in random.items()}
        )
        apart = verify.difference(one, other)
        if not apart < ROUNDING:
            raise AssertionError(f"claimed to be invariant, change: {apart}")
    plain = outputs(model, x, {})
    for variable in function[:: max(1, len(function) // 3)]:
        if not verify.difference(plain, outputs(model, x, {id(variable): 4})):
            raise AssertionError(f"said to be the function: {variable.path}")
    for layer, epsilon in epsilons.items():
        layer.epsilon = epsilon
    return len(claimed)


def outputs(model, x, factors):
    """The outputs in training mode with scaled weights; nothing is kept."""
    before = [array(v).astype(v.dtype) for v in model.variables]
    try:
        for variable in model.trainable_variables:
            factor = factors.get(id(variable))
            if factor is not None:
                variable.assign(array(variable) * factor)
        made = keras.tree.flatten(model(x, training=True))
        return np.concatenate(
            [np.asarray(y, "float64").reshape(len(y), -1) for y in made], 1
        )
    finally:
        for variable, value in zip(model.variables, before, strict=True):
            variable.assign(value)


def paths_of_layers(layer, prefix=""):
    """The layers inside, with the names of those around them before."""
    parts = layer.layers if isinstance(layer, keras.Model) else layer._layers
    for part in parts:
        yield part, f"{prefix}{part.name}"
        yield from paths_of_layers(part, f"{prefix}{part.name}/")


def look_at(name, build, largest):
    """One row of the table."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    start = time.perf_counter()
    model = build()
    row = {"model": name, "parameters": model.count_params()}
    if model.count_params() > largest:
        return {**row, "left_out": True}
    randomize(model)
    structure = read(model)
    explanation = graph.explain(model)
    effects = collections.Counter(r.effect for r in explanation.weights)
    x = verify.examples(model, structure, 4)
    weights = model.get_weights()
    row["claims"] = check_claims(model, explanation, x)
    model.set_weights(weights)
    row["weights"] = len(explanation.weights)
    row["unknown"] = effects["unknown"]
    dead = kill(model)
    rows = {part.layer: part for part in compacted(model)}
    row["dead"] = sum(dead.values())
    paths = dict(paths_of_layers(model))
    removed, missed, reasons = 0, 0, collections.Counter()
    for layer, count in dead.items():
        part = rows.get(paths[layer])
        gone = 0
        note = "inside a layer of a class that is not Keras's own"
        if part is not None and part.units_before is not None:
            gone = min(count, part.units_before - part.units_after)
            note = part.note.removeprefix("left whole: ")
            note = note or "read together with a unit that is used"
        removed += gone
        if gone < count:
            note = note.split("; ")[0]
            reasons[without_names(note)] += count - gone
            if not out_of_reach(note, count):
                missed += count - gone
    row["removed"] = removed
    row["reachable"] = removed + missed
    row["reasons"] = reasons.most_common()
    row["seconds"] = round(time.perf_counter() - start, 1)
    return row


def compacted(model):
    """What became of the layers, without the sizes, which take longer."""
    with unittest.mock.patch.object(
        compaction, "_report", lambda *arguments: arguments[3]
    ):
        return graph.compact(model, report=True)[1]


def out_of_reach(note, count):
    """Whether no model of the same classes is without so many units."""
    groups = re.search(r"splits the channels into (\d+) groups of (\d+)", note)
    if groups:
        return count % int(groups[2]) > 0
    return any(reason in note for reason in OUT_OF_REACH)


def without_names(note):
    """A reason without the layer it is about, to count those of a kind."""
    note = re.sub(r"^\S+ \((\w+)\) is not known", r"\1 is not known", note)
    note = re.sub(r"an input of (?!the model).*", "the input of a layer", note)
    known = ("subtracts", "splits", "joins it", "has no entry")
    return re.sub(rf"^\S+ (?={'|'.join(known)})", "a layer ", note)


def page(rows):
    """The Markdown of all rows."""
    left_out = [row for row in rows if row.get("left_out")]
    said = ""
    if left_out:
        names = ", ".join(row["model"] for row in left_out)
        said = f"; without {names}, which were not run"
    columns = markdown_tables.header(COLUMNS)
    lines = [HEADER.format(left_out=said), f"\n{columns}\n"]
    for row in rows:
        if row.get("left_out"):
            continue
        if "error" in row:
            said = textwrap.shorten(row["error"], 220)
            cells = [row["model"], *[""] * 6, said]
            lines.append(markdown_tables.row(cells) + "\n")
            continue
        reasons = "; ".join(f"{n:,}: {why}" for why, n in row["reasons"])
        share = ""
        if row["reachable"]:
            share = f" ({row['removed'] / row['reachable']:.0%})"
        counts = [f"{row[name]:,}" for name in COLUMNS[1:-1]]
        counts[-1] += share
        cells = [row["model"], *counts, reasons]
        lines.append(markdown_tables.row(cells) + "\n")
    return "".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=())
    parser.add_argument("--largest", type=float, default=400.0)
    flags = parser.parse_args()
    RESULTS.parent.mkdir(exist_ok=True)
    known = {}
    if RESULTS.exists():
        lines = RESULTS.read_text(encoding="utf-8").splitlines()
        known = {row["model"]: row for row in map(json.loads, lines)}
    everything = [*applications(), *backbones()]
    for name, build in everything:
        chosen = any(wanted in name for wanted in flags.only)
        if chosen if flags.only else name not in known:
            try:
                known[name] = look_at(name, build, 1e6 * flags.largest)
            except Exception as error:
                said = f"{type(error).__name__}: {' '.join(str(error).split())}"
                known[name] = {"model": name, "error": said}
            with RESULTS.open("a", encoding="utf-8") as file:
                print(json.dumps(known[name]), file=file)
            print(known[name], flush=True)
            gc.collect()
    rows = [known[name] for name, _ in everything if name in known]
    PAGE.write_text(page(rows), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
