"""Randomness as a function of what it is for: nothing depends on what was drawn before."""

import numpy as np
import torch


def seed_of(*numbers: int) -> int:
    """One 63-bit seed from several non-negative numbers (run seed, epoch, step ...); near numbers give unlike seeds."""
    high, low = np.random.SeedSequence(numbers).generate_state(2, np.uint32)
    return int(high) << 31 ^ int(low)


def seed_torch(seed: int, device: str) -> None:
    """What is drawn from here on, on a device of this type."""
    if device == "cpu":
        torch.default_generator.manual_seed(seed)  # what follows would take 0.5 ms to note the seed for GPUs, too
    else:
        torch.manual_seed(seed)
