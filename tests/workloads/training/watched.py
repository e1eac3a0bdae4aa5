"""A loop that remembers its trainings: what the tests of methods look at."""

from typing import NamedTuple

from gossamer.workloads.training.loop import Loop


class Training(NamedTuple):
    """What one training was given, and the weights ``after`` it; ``how``: its options by name."""

    start: dict
    masks: dict
    first: int
    last: int
    after: dict
    how: dict


class Watched:
    """The loop of a recipe, every training of which is in ``calls``."""

    def __init__(self, recipe):
        self.loop = Loop.of(recipe)
        self.calls = []

    def __getattr__(self, name):
        return getattr(self.loop, name)

    def train(self, weights, masks, first, last, **how):
        after = self.loop.train(weights, masks, first, last, **how)
        self.calls.append(Training(weights, masks, first, last, after, how))
        return after
