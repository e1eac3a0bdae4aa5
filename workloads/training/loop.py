"""The training loop: deterministic, masked, and able to start at any step of its schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ..data import Data, load_data
from ..errors import InputError
from ..networks import build_network
from ..pruning import Masks, Weights
from .recipe import Recipe


@contextmanager
def deterministic(seed: int) -> Iterator[None]:
    """Compute the same bits every time: one thread, deterministic kernels, torch's generator seeded; then restore."""
    threads = torch.get_num_threads()
    strict = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        torch.use_deterministic_algorithms(True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(strict, warn_only=warn_only)
            torch.set_num_threads(threads)


@dataclass(frozen=True, eq=False)
class Loop:
    """A network, its data and its recipe; ``progress`` is told of every step.

    Weights go in and come out as arrays: no call leaves anything behind for the next.
    """

    recipe: Recipe
    network: nn.Module
    data: Data
    progress: Callable[[], None] = lambda: None

    @classmethod
    def of(cls, recipe: Recipe, progress: Callable[[], None] = lambda: None) -> Loop:
        """Return the loop of a recipe, its network drawn from the recipe's seed. Raises InputError."""
        data = load_data(recipe.data, test_fraction=recipe.test_fraction, seed=recipe.split_seed)
        with deterministic(recipe.seed):
            loop = cls(recipe, build_network(recipe.network), data, progress)
        if recipe.rewind_step >= loop.steps:
            raise InputError(
                f"recipe {recipe.name}: rewind_step must be below the run's {loop.steps} steps "
                f"({recipe.epochs} epochs of {loop.steps_per_epoch}), not {recipe.rewind_step}"
            )
        if recipe.samples > len(data.test_inputs):
            raise InputError(
                f"recipe {recipe.name}: samples must be at most the {len(data.test_inputs)} test samples, "
                f"not {recipe.samples}"
            )
        return loop

    @property
    def steps_per_epoch(self) -> int:
        """Count the batches of one pass over the training samples."""
        return math.ceil(len(self.data.train_inputs) / self.recipe.batch_size)

    @property
    def steps(self) -> int:
        """Count the steps of one training, fine-tuning aside."""
        return self.recipe.epochs * self.steps_per_epoch

    def weights(self) -> Weights:
        """Return a copy of the network's parameters."""
        return {name: value.detach().numpy().copy() for name, value in self.network.named_parameters()}

    def full_masks(self) -> Masks:
        """Return masks that prune nothing, one for each prunable parameter: the kernels, the last one by choice."""
        kernels = {name: value for name, value in self.weights().items() if value.ndim > 1}
        if not self.recipe.prune_output:
            kernels.popitem()
        return {name: np.ones(value.shape, bool) for name, value in kernels.items()}

    def train(
        self, weights: Mapping[str, np.ndarray], masks: Masks, first: int, last: int, *, finetune: bool = False
    ) -> Weights:
        """Return the weights after steps ``first`` .. ``last`` - 1, starting from ``weights``, 0 where masked.

        A step's batch and learning rate depend on its number alone; momentum starts at 0. ``finetune`` uses the
        recipe's fine-tuning rate instead of its schedule.
        """
        self.load(apply_masks(weights, masks))
        parameters = dict(self.network.named_parameters())
        pruned = [(parameters[name], torch.from_numpy(~mask)) for name, mask in masks.items() if not mask.all()]
        inputs, labels = torch.from_numpy(self.data.train_inputs), torch.from_numpy(self.data.train_labels)
        with deterministic(self.recipe.seed), torch.enable_grad():
            optimizer, schedule = self._optimizer(first, finetune)
            self.network.train()
            for batch in self._batches(first, last):
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(self.network(inputs[batch]), labels[batch])
                torch.autograd.backward(loss)
                optimizer.step()
                schedule.step()
                with torch.no_grad():  # the update is masked too: a pruned weight never leaves 0
                    for parameter, gone in pruned:
                        parameter.masked_fill_(gone, 0.0)
                self.progress()
        trained = self.weights()
        if not all(np.isfinite(value).all() for value in trained.values()):
            raise self._diverged()
        return trained

    def evaluate(self, weights: Mapping[str, np.ndarray]) -> tuple[float, float]:
        """Return accuracy (a fraction) and mean cross-entropy (in nats) on the test samples."""
        self.load(weights)
        labels = torch.from_numpy(self.data.test_labels)
        with deterministic(self.recipe.seed), torch.no_grad():
            self.network.eval()
            outputs = self.network(torch.from_numpy(self.data.test_inputs))
            loss = nn.functional.cross_entropy(outputs, labels)
            hits = int((outputs.argmax(dim=1) == labels).sum())
        if not torch.isfinite(loss):
            raise self._diverged()
        return hits / len(labels), float(loss)

    def load(self, weights: Mapping[str, np.ndarray]) -> None:
        """Give the network these parameters."""
        with torch.no_grad():
            for name, parameter in self.network.named_parameters():
                parameter.copy_(torch.from_numpy(weights[name]))

    def _diverged(self) -> InputError:
        recipe = self.recipe
        return InputError(
            f"recipe {recipe.name}: the loss must stay finite, and did not with learning_rate {recipe.learning_rate}; "
            "lower it"
        )

    def _optimizer(
        self, first: int, finetune: bool
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        """Return a fresh optimiser and its schedule, standing at step ``first``."""
        recipe = self.recipe
        parameters = list(self.network.parameters())
        rate = recipe.finetune_learning_rate if finetune else recipe.learning_rate
        optimizer: torch.optim.Optimizer
        if recipe.optimizer == "adam":
            optimizer = torch.optim.Adam(parameters, lr=rate, weight_decay=recipe.weight_decay)
        else:
            optimizer = torch.optim.SGD(parameters, lr=rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay)

        def factor(step: int) -> float:
            return 1.0 if finetune else rate_factor(recipe, (first + step) / self.steps_per_epoch)

        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)

    def _batches(self, first: int, last: int) -> Iterator[torch.Tensor]:
        """Yield the samples of each step; every epoch has an order of its own, drawn from the seed and its number."""
        size = self.recipe.batch_size
        for epoch in range(first // self.steps_per_epoch, -(-last // self.steps_per_epoch)):
            order = np.random.default_rng((self.recipe.seed, epoch)).permutation(len(self.data.train_inputs))
            start = epoch * self.steps_per_epoch
            for step in range(max(first, start), min(last, start + self.steps_per_epoch)):
                yield torch.from_numpy(order[(step - start) * size : (step - start + 1) * size])


def rate_factor(recipe: Recipe, epoch: float) -> float:
    """Return the learning rate at ``epoch``, which need not be whole, as a multiple of the first one."""
    if recipe.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * min(epoch / recipe.epochs, 1.0)))
    if recipe.schedule == "multistep":
        return float(recipe.gamma ** sum(epoch >= milestone for milestone in recipe.milestones))
    return 1.0


def apply_masks(weights: Mapping[str, np.ndarray], masks: Masks) -> Weights:
    """Return the weights, 0 where masked (and +0, which a product with the mask would not always be)."""
    return {name: np.where(masks[name], w, np.float32(0)) if name in masks else w for name, w in weights.items()}
