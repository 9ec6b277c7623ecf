"""The command `keras-wd`.

Not in the package, whose import loads TensorFlow: what TensorFlow logs is set
before that.
"""

import os
import sys
import tempfile


def main() -> int:
    """Run `keras_wd.__main__.main`; return the exit status."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if os.environ["TF_CPP_MIN_LOG_LEVEL"] != "3":
        return _loaded()()
    # Some versions write lines before they look at the level.
    sys.stderr.flush()
    screen = os.dup(2)
    with tempfile.TemporaryFile() as written:
        os.dup2(written.fileno(), 2)
        try:
            command = _loaded()
        finally:
            sys.stderr.flush()
            os.dup2(screen, 2)
            os.close(screen)
            written.seek(0)
            for line in written.read().decode(errors="replace").splitlines():
                if not is_chatter(line):
                    print(line, file=sys.stderr)
    return command()


def is_chatter(line: str) -> bool:
    """Whether a line is of TensorFlow's log, and no error."""
    head, _, rest = line.partition(" ")
    return line.startswith("WARNING: All log messages before absl") or (
        head[:1] in ("I", "W")
        and len(head) == 5
        and head[1:].isdigit()
        and bool(rest)
    )


def _loaded():
    import keras

    from keras_wd.__main__ import main

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # Looks for GPUs, and fixes no devices yet.
        tf.config.list_physical_devices()
    return main
