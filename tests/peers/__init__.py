"""Keras's own tests, with our wrapper in the place of every optimizer.

`python -m tests.peers keras PATH` runs the tests of a checkout of Keras: each
that passes is run again with `WeightDecay(optimizer, L2(...))` wherever it
makes an optimizer. Nothing of Keras is copied or changed.
"""
