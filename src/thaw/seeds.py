"""Seeds computed from run seed, epoch, step ..., so that random numbers do not depend on those drawn before."""

import random

import numpy as np
import torch


def seed_of(*numbers: int) -> int:
    """Mix non-negative numbers (run seed, epoch, step ...) into a 63-bit seed; close numbers give unrelated seeds."""
    high, low = np.random.SeedSequence(numbers).generate_state(2, np.uint32)
    return int(high) << 31 ^ int(low)


def seed_all(seed: int, device: str) -> None:
    """Seed Python, NumPy and torch, on the CPU and on the given type of device."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    if device == "cpu":
        torch.default_generator.manual_seed(seed)  # torch.manual_seed takes 0.5 ms more to seed GPUs, too
    else:
        torch.manual_seed(seed)
