"""A trained network, and the samples that a search trains, validates and tests on and traces."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data import Data
from ..errors import InputError
from ..extras import need
from ..pruning import Weights
from ..training.recipe import Recipe, override

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..training.batches import Batches
    from ..training.loop import Loop
    from ..training.run import Run

VALIDATION = 0.2  # of the training samples


@dataclass(frozen=True, eq=False)
class Trained:
    """A network with trained weights, and what it takes to judge changes of it.

    ``loop``: trains on the training samples that are left and evaluates on the validation samples. ``tests``: the test
    samples, for the end alone. ``weights``: parameters and buffers. ``samples``: one small batch of test samples, whose
    activations every trace carries. ``accuracy``: of the network as it is, on the validation samples. ``seen``: whether
    the weights were trained on the validation samples too, which then flatter.
    """

    loop: Loop
    tests: Batches
    weights: Weights
    samples: torch.Tensor
    accuracy: float
    seen: bool = False
    labels: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, recipe: Recipe, *, seed: int | None = None, validation: float = VALIDATION) -> Trained:
        """Return the network of ``recipe``, trained dense by its schedule on all but the validation samples.

        What the recipe says of pruning is left aside. ``seed`` replaces the recipe's; it draws first weights, the order
        of samples and which of them validate. The test samples stay those of the recipe. Raises InputError.
        """
        recipe = dense_recipe(recipe, seed)
        loop, tests = _split(recipe, validation)
        weights = loop.train(loop.weights(), loop.full_masks(), 0, loop.steps, average=True)
        return cls._measured(loop, tests, weights)

    @classmethod
    def of_run(cls, run: Run, *, seed: int | None = None, validation: float = VALIDATION) -> Trained:
        """Return the network of a finished run, or of a checkpoint, with its weights; what it pruned stays 0 at first.

        The run was trained on samples that validate here: ``seen`` is True. Raises InputError.
        """
        if not run.recipe.network:
            raise InputError(
                f"run {run.recipe.name}: its network was a module given to prune(), and is not here; "
                "use Trained.of_module"
            )
        loop, tests = _split(dense_recipe(run.recipe, seed), validation)
        return cls._measured(loop, tests, run.weights | run.buffers, seen=True)

    @classmethod
    def of_module(
        cls,
        module: nn.Module,
        train_loader: Iterable[Any],
        validation_loader: Iterable[Any],
        test_loader: Iterable[Any],
        recipe: Recipe,
    ) -> Trained:
        """Return a module of one's own as it stands, a copy; the loaders are as those of `training.prune`.

        ``recipe`` says how it is fine-tuned, by which seed, and how many samples of the tests are traced.
        Raises InputError.
        """
        import copy

        from ..training.batches import LoaderBatches
        from ..training.loop import Loop, check_device, deterministic
        from ..training.redraw import redrawn

        recipe = override(dense_recipe(recipe, None), network="", data="")
        device = check_device(recipe)
        with deterministic(recipe.seed):
            train, validation, tests = (
                LoaderBatches.of(loader, device, name)
                for loader, name in (
                    (train_loader, "train_loader"),
                    (validation_loader, "validation_loader"),
                    (test_loader, "test_loader"),
                )
            )
            network = copy.deepcopy(module).to(device)
            loop = Loop(recipe, network, train, validation, lambda: redrawn(module)).checked()
        return cls._measured(loop, tests, loop.weights())

    @classmethod
    def _measured(cls, loop: Loop, tests: Batches, weights: Weights, seen: bool = False) -> Trained:
        from ..training.loop import deterministic

        with deterministic(loop.recipe.seed):
            inputs, labels = next(iter(replace(loop, tests=tests).in_order()))
        count = loop.recipe.samples
        samples = inputs[:count].detach().cpu().clone()
        return cls(
            loop, tests, weights, samples, loop.evaluate(weights)[0], seen, [int(each) for each in labels[:count]]
        )

    @property
    def recipe(self) -> Recipe:
        """Return the recipe, of method "dense", that the network is trained and fine-tuned by."""
        return self.loop.recipe


def dense_recipe(recipe: Recipe, seed: int | None) -> Recipe:
    """Return ``recipe`` with nothing pruned; of a run in phases, the schedule covers as many epochs."""
    plain = Recipe(name=recipe.name)
    kept = (
        "network", "data", "data_folder", "test_fraction", "split_seed", "seed", "epochs", "batch_size", "optimizer",
        "learning_rate", "momentum", "weight_decay", "schedule", "milestones", "gamma", "finetune_learning_rate",
        "device", "threads", "samples",
    )  # fmt: skip
    changes = {key: getattr(recipe, key) for key in kept} | {"epochs": recipe.schedule_epochs}
    return override(plain, **(changes if seed is None else changes | {"seed": seed}))


def _split(recipe: Recipe, validation: float) -> tuple[Loop, Batches]:
    """Return the loop over a part of the training samples, the rest of them its tests, and the test samples."""
    need("train", "torch", "sklearn")
    import torch

    from ..training.batches import ArrayBatches
    from ..training.loop import EVALUATED, Loop

    loop = Loop.of(recipe)
    data, tests = loop.data, loop.tests
    assert data is not None
    count = len(data.train_inputs)
    held = round(validation * count)
    if not 0 < held < count:
        raise InputError(
            f"validation must leave both parts of the {count} training samples at least one, not {validation}"
        )
    order = np.random.default_rng((recipe.seed, 2)).permutation(count)
    train, held_out = np.sort(order[held:]), np.sort(order[:held])
    device = loop.batches.inputs.device if isinstance(loop.batches, ArrayBatches) else torch.device(recipe.device)
    batches, validated = (
        ArrayBatches(
            torch.from_numpy(data.train_inputs[index]).to(device),
            torch.from_numpy(data.train_labels[index]).to(device),
            size,
        )
        for index, size in ((train, recipe.batch_size), (held_out, EVALUATED))
    )
    part = Data(
        data.train_inputs[train], data.train_labels[train], data.train_inputs[held_out], data.train_labels[held_out]
    )
    return replace(loop, batches=batches, tests=validated, data=part), tests
