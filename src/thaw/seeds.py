"""Randomness as a function of what it is for: nothing depends on what was drawn before."""

import numpy as np


def seed_of(*numbers: int) -> int:
    """One 63-bit seed from several non-negative numbers (run seed, epoch, step ...); near numbers give unlike seeds."""
    high, low = np.random.SeedSequence(numbers).generate_state(2, np.uint32)
    return int(high) << 31 ^ int(low)
