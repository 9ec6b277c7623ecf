"""What `keras_wd.where` picks in the models people have: docs/selections.md.

A member of every family of keras.applications, and tiny backbones of KerasHub,
with random weights. Needs the extra `zoo`.

    python -m benchmarks selections
"""

import collections
import gc
import pathlib
import re
import sys

import keras
import markdown_tables
from models import applications
from models import backbones

from keras_wd import where

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "selections.md"
SMALLEST = (
    *("ConvNeXtTiny", "DenseNet121", "EfficientNetB0", "EfficientNetV2B0"),
    *("InceptionResNetV2", "InceptionV3", "MobileNet", "MobileNetV2"),
    *("MobileNetV3Small", "NASNetMobile", "ResNet50", "ResNet50V2", "VGG16"),
    "Xception",
)
ROLES = {
    "embeddings": where.embeddings(),
    "attention": where.attention(),
    "normalizations": where.normalizations(),
    "tokens": where.tokens(),
}

HEADER = """# What selections pick

Written by `python -m benchmarks selections`: `keras_wd.where` on a member of
every family of `keras.applications` and on tiny backbones of KerasHub.

`kernels()`, the default of every decay, picks the weights that multiply:
*kernels* counts them. Of the trainable weights of rank one and zero it picks
none: biases, the scales and shifts of normalizations, scales of layers. *Left
out* are the weights of rank two and more that it does not pick either, by
their names, with numbers as #. The other columns count what the other roles
pick.

Embedding tables are picked: they multiply a one-hot token, and that is what
Keras's and PyTorch's AdamW do. `kernels() & ~embeddings()` is without them.
LoRA factors are picked too: their decay pulls a layer back to its frozen
kernel; `kernels() & ~paths("**/lora_*")` is without them. Tables of positions,
class tokens, slopes of PReLU and scales of any rank are not.

| model | weights | kernels | embeddings | attention | normalizations | tokens | left out |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""  # noqa: E501

MORE = {
    "MixtralBackbone": dict(
        vocabulary_size=50,
        num_layers=1,
        num_query_heads=4,
        hidden_dim=16,
        intermediate_dim=32,
        num_key_value_heads=2,
        num_experts=2,
    ),
    "DebertaV3Backbone": dict(
        vocabulary_size=50,
        num_layers=1,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        max_sequence_length=12,
        bucket_size=4,
    ),
    "DeiTBackbone": dict(
        image_shape=(32, 32, 3),
        patch_size=8,
        num_layers=1,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
    ),
    "DINOV2Backbone": dict(
        patch_size=8,
        num_layers=1,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        image_shape=(32, 32, 3),
        position_embedding_shape=(32, 32, 3),
        num_register_tokens=2,
    ),
    "ViTDetBackbone": dict(
        hidden_size=16,
        num_layers=2,
        intermediate_dim=32,
        num_heads=2,
        global_attention_layer_indices=[1],
        image_shape=(32, 32, 3),
        patch_size=8,
        window_size=2,
        num_output_channels=16,
    ),
    "SwinTransformerBackbone": dict(
        image_shape=(32, 32, 3),
        embed_dim=16,
        depths=[1, 1],
        num_heads=[2, 2],
        window_size=2,
    ),
    "XLNetBackbone": dict(
        vocabulary_size=50,
        num_layers=1,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
    ),
    "WhisperBackbone": dict(
        vocabulary_size=50,
        num_layers=1,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        max_encoder_sequence_length=12,
        max_decoder_sequence_length=12,
    ),
}


def models():
    """(name, function that builds it) of everything in the table."""
    import keras_hub

    known = dict(applications())
    yield from ((name, known[name]) for name in SMALLEST)
    yield from backbones()
    for name, arguments in MORE.items():
        kind = getattr(keras_hub.models, name)
        yield f"KerasHub {name}", lambda k=kind, a=arguments: k(**a)


def look_at(name, model):
    """One row of the table."""
    variables = model.trainable_variables
    kernels = where.kernels().picked(variables)
    counts = [len(variables), sum(kernels)]
    counts += [sum(role.picked(variables)) for role in ROLES.values()]
    left_out = collections.Counter(
        re.sub(r"\d+", "#", "/".join(variable.path.split("/")[-2:]))
        for variable, picked in zip(variables, kernels, strict=True)
        if len(variable.shape) > 1 and not picked
    )
    said = ", ".join(f"`{path}`" for path in sorted(left_out))
    return markdown_tables.row([name, *counts, said]) + "\n"


def main():
    rows = []
    for name, build in models():
        keras.utils.clear_session()
        rows.append(look_at(name, build()))
        print(rows[-1], end="", flush=True)
        gc.collect()
    PAGE.write_text(HEADER + "".join(rows), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
