"""What happens to files."""


def damaged(whole, rng):
    """A copy of some bytes, cut short or with one bit changed."""
    copy = bytearray(whole)
    place = rng.integers(len(whole))
    if rng.integers(2):
        copy[place] ^= 1 << rng.integers(8)
    else:
        del copy[place:]
    return copy
