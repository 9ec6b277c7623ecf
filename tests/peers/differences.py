"""Tests of Keras that must fail with the wrapper, and why."""

KNOWN = {}
