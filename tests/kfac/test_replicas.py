"""Two devices take the steps and measure the factors of one."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("kl_clip", ["none", "clip"])
def test_two_devices_equal_one(kl_clip):
    result = subprocess.run(
        [sys.executable, "-m", "tests.kfac.replicas", kl_clip],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.stdout.strip().endswith("equal"), result.stderr[-2000:]
