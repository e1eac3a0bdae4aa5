"""The training loop: deterministic, masked, and able to start at any step of its schedule."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn

from ..data import Data, load_data
from ..errors import InputError
from ..networks import build_network
from ..pruning import Masks, Weights
from .batches import ArrayBatches, Batch, Batches, mixed
from .flow import Flow, pass_on, take_back
from .kernels import kernels, prunable, scales, uses
from .recipe import Recipe

EVALUATED = 2048  # test samples at a time
FINE_TUNED = ("one-shot", "iterative", "slimming", "admm")  # methods that train on at a rate of their own

Memo = Callable[[str, Mapping[str, object], Callable[[], Weights]], Weights]
"""Returns what the stage of this name and these inputs gives, from a file or by doing it; see `stages`."""


@contextmanager
def deterministic(seed: int, threads: int = 1) -> Iterator[None]:
    """Compute the same bits every time: one thread, deterministic kernels, torch's generators seeded; then restore."""
    before = torch.get_num_threads()
    strict = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    if torch.cuda.is_available():  # what cuBLAS asks for; read when it first starts
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        seed_torch(seed)
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(strict, warn_only=warn_only)
            torch.set_num_threads(before)


def seed_torch(seed: int) -> None:
    """Seed torch's generators: `torch.manual_seed`, which without a GPU spends a third of a millisecond on GPUs."""
    if torch.cuda.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


def _at_once(name: str, inputs: Mapping[str, object], act: Callable[[], Weights]) -> Weights:
    return act()


@dataclass(frozen=True, eq=False)
class Loop:
    """A network, its data and its recipe; ``progress`` is told of steps done, ``spent`` of their cost.

    Weights go in and come out as arrays, the buffers of batch norms among them: no call leaves anything behind for
    the next. ``fresh`` returns the network with other first weights. ``memo`` keeps what a stage gave.
    """

    recipe: Recipe
    network: nn.Module
    batches: Batches
    tests: Batches
    fresh: Callable[[], nn.Module]
    data: Data | None = None
    progress: Callable[[int], None] = lambda steps: None
    spent: Callable[[float], None] = lambda cost: None
    memo: Memo = field(default=_at_once)

    @classmethod
    def of(cls, recipe: Recipe, progress: Callable[[int], None] = lambda steps: None) -> Loop:
        """Return the loop of a recipe, its network drawn from the recipe's seed. Raises InputError."""
        if not recipe.network or not recipe.data:
            raise InputError(
                f"recipe {recipe.name}: network and data must be named here, not {recipe.network!r} and "
                f"{recipe.data!r}; name them, or give prune() a module and loaders"
            )
        data = load_data(
            recipe.data, test_fraction=recipe.test_fraction, seed=recipe.split_seed, folder=recipe.data_folder
        )

        def fresh() -> nn.Module:
            return build_network(recipe.network, data.shape, data.classes)

        with deterministic(recipe.seed):
            network = fresh()
        device = check_device(recipe)
        train, test = (
            ArrayBatches(torch.from_numpy(inputs).to(device), torch.from_numpy(labels).to(device), size)
            for inputs, labels, size in (
                (data.train_inputs, data.train_labels, recipe.batch_size),
                (data.test_inputs, data.test_labels, EVALUATED),
            )
        )
        if recipe.samples > len(data.test_inputs):
            raise InputError(
                f"recipe {recipe.name}: samples must be at most the {len(data.test_inputs)} test samples, "
                f"not {recipe.samples}"
            )
        return cls(recipe, network.to(device), train, test, fresh, data, progress).checked()

    def checked(self) -> Loop:
        """Return the loop itself. Raises InputError where the recipe asks for what network and data cannot give."""
        recipe = self.recipe
        if recipe.rewind_step >= self.steps:
            raise InputError(
                f"recipe {recipe.name}: rewind_step must be below the run's {self.steps} steps "
                f"({recipe.epochs} epochs of {self.steps_per_epoch}), not {recipe.rewind_step}"
            )
        for name, value in self.network.named_parameters():
            if value.dtype != torch.float32:
                raise InputError(f"parameter {name} must be float32, not {value.dtype}; convert the module")
        prunable(self.network, recipe)
        return self

    @property
    def steps_per_epoch(self) -> int:
        """Count the batches of one pass over the training samples."""
        return len(self.batches)

    @property
    def steps(self) -> int:
        """Count the steps that the schedule covers: one training, fine-tuning at a rate of its own aside."""
        return self.recipe.schedule_epochs * self.steps_per_epoch

    def weights(self) -> Weights:
        """Return a copy of the network's parameters and, behind them, its buffers."""
        return {name: value.detach().cpu().numpy().copy() for name, value in self._state().items()}

    def _state(self) -> dict[str, torch.Tensor]:
        return dict(self.network.named_parameters()) | dict(self.network.named_buffers())

    def full_masks(self) -> Masks:
        """Return masks that prune nothing, one for each prunable kernel."""
        parameters = dict(self.network.named_parameters())
        return {name: np.ones(tuple(parameters[name].shape), bool) for name in prunable(self.network, self.recipe)}

    def train(
        self,
        weights: Mapping[str, np.ndarray],
        masks: Masks,
        first: int,
        last: int,
        *,
        stage: str = "train",
        finetune: bool = False,
        particle: int = 0,
        average: bool = False,
        flow: Flow | None = None,
        towards: Mapping[str, np.ndarray] | None = None,
    ) -> Weights:
        """Return the weights after steps ``first`` .. ``last`` - 1, starting from ``weights``, 0 where masked.

        A step's batch and learning rate depend on its number and on the ``particle`` alone; momentum starts at 0.
        ``finetune`` uses the recipe's fine-tuning rate instead of its schedule. ``average`` returns the average over
        the recipe's SWA epochs. ``flow`` trains dense weights towards N:M, its step 0 being ``first``.
        ``towards`` adds half the recipe's rho times the squared distance to these weights to the loss.
        ``stage`` names the training among those of its run.
        """
        start = apply_masks(weights, masks)

        def act() -> Weights:
            with deterministic(self.recipe.seed, self.recipe.threads), torch.enable_grad():
                return self._train(start, masks, first, last, finetune, particle, average, flow, towards or {})

        if first == last:
            return start
        inputs = {"weights": start, "masks": masks, "first": first, "last": last, "particle": particle,
                  "finetune": finetune, "average": average, "flow": repr(flow)}  # fmt: skip
        if towards is not None:
            inputs["towards"] = dict(towards)
        trained = self.memo(stage, inputs, act)
        self.spent(self._cost(masks, last - first, flow))
        return trained

    def _train(
        self,
        weights: Weights,
        masks: Masks,
        first: int,
        last: int,
        finetune: bool,
        particle: int,
        average: bool,
        flow: Flow | None,
        towards: Mapping[str, np.ndarray],
    ) -> Weights:
        recipe, network = self.recipe, self.network
        self.load(weights)
        parameters = dict(network.named_parameters())
        pruned = [name for name, mask in masks.items() if not mask.all()]
        trimmed = [parameters[name].detach() for name in pruned]
        kept = [torch.from_numpy(masks[name]).to(parameters[name]) for name in pruned]  # 0.0 and 1.0
        flowing = [] if flow is None else [parameters[name] for name in masks]
        penalties = self._penalties(masks, parameters, finetune)
        pulled = [(parameters[name], torch.from_numpy(goal).to(parameters[name])) for name, goal in towards.items()]
        averaged = AveragedModel(network) if average and recipe.swa_epochs else None
        tail = recipe.schedule_epochs - recipe.swa_epochs
        optimizer, schedule = self._optimizer(first, finetune, averaged is not None)
        network.train()
        learning = list(network.parameters())
        for step, (inputs, labels) in self._batches(first, last, particle):
            for parameter in learning:  # zero_grad() costs more, being watched by torch's profiler
                parameter.grad = None
            dense = None if flow is None else pass_on(flowing, flow, step - first)
            loss = nn.functional.cross_entropy(network(inputs), labels)
            torch.autograd.backward(loss)
            if flow is not None and dense is not None:
                take_back(flowing, flow, dense)
            for parameter, strength in penalties:
                if parameter.grad is not None:
                    parameter.grad.add_(parameter.detach().sign(), alpha=strength)
            for parameter, goal in pulled:
                if parameter.grad is not None:
                    parameter.grad.add_(parameter.detach() - goal, alpha=recipe.rho)
            optimizer.step()
            schedule.step()
            if pruned:  # the update is masked too: a pruned weight never leaves 0
                torch._foreach_mul_(trimmed, kept)
            if averaged is not None and (step + 1) % len(self.batches) == 0 and (step + 1) // len(self.batches) > tail:
                averaged.update_parameters(network)
            self.progress(1)
        if averaged is not None:
            self.load(self.weights() | _parameters_of(averaged.module))
            self._recalibrate(particle)
        return self._finite(apply_masks(self.weights(), masks))

    def recalibrate(self, weights: Weights) -> Weights:
        """Return ``weights`` with the batch-norm statistics that the training samples give them, if there are any."""
        self.load(weights)
        with deterministic(self.recipe.seed, self.recipe.threads):
            self._recalibrate(0)
        return self.weights()

    def _recalibrate(self, particle: int) -> None:
        update_bn(self.batches.epoch(self.recipe.seed, particle, 0), self.network)

    def evaluate(self, weights: Mapping[str, np.ndarray]) -> tuple[float, float]:
        """Return accuracy (a fraction) and mean cross-entropy (in nats) on the test samples."""
        self.load(weights)
        total = hits = count = 0.0
        with deterministic(self.recipe.seed, self.recipe.threads), torch.no_grad():
            self.network.eval()
            for inputs, labels in self.in_order():
                outputs = self.network(inputs)
                total += float(nn.functional.cross_entropy(outputs, labels, reduction="sum"))
                hits += int((outputs.argmax(dim=1) == labels).sum())
                count += labels.numel()
        if not math.isfinite(total):
            raise self._diverged()
        return hits / count, total / count

    def in_order(self) -> Iterator[Batch]:
        """Return the batches of the test, in an order that is always the same."""
        if isinstance(self.tests, ArrayBatches):
            return self.tests.in_order()
        return self.tests.epoch(self.recipe.seed, 0, 0)

    def load(self, weights: Mapping[str, np.ndarray]) -> None:
        """Give the network these parameters and buffers."""
        with torch.no_grad():
            for name, value in self._state().items():
                if name in weights:
                    value.copy_(torch.from_numpy(weights[name]))

    def redrawn(self) -> Weights:
        """Return first weights that the network did not start from, drawn from the recipe's seed."""
        with deterministic(mixed(self.recipe.seed, 1)):
            network = self.fresh()
        state = dict(network.named_parameters()) | dict(network.named_buffers())
        return {name: value.detach().cpu().numpy().copy() for name, value in state.items()}

    @cached_property
    def work(self) -> dict[str, float]:
        """Return each kernel's share of the multiplications of a forward pass, by name."""
        with deterministic(self.recipe.seed, self.recipe.threads):
            counts = uses(self.network, next(iter(self.in_order()))[0])
        sizes = {name: value.numel() * counts[name] for name, value in kernels(self.network).items()}
        return {name: size / sum(sizes.values()) for name, size in sizes.items()}

    def _cost(self, masks: Masks, steps: int, flow: Flow | None) -> float:
        """Return the multiplications of ``steps`` steps, 1.0 being a dense training over the whole schedule.

        A step is three products of equal size: forward, the gradient of the inputs, the gradient of the weights. The
        first two use the weights that are kept. The third is dense where dense weights learn, as they do under N:M.
        """
        kept = 0.0
        for name, share in self.work.items():
            kept += share * (float(masks[name].mean()) if name in masks else 1.0)
        if flow is None:
            return kept * steps / self.steps
        prunable_share = math.fsum(self.work.get(name, 0.0) for name in masks)
        forward = math.fsum(1 - prunable_share + prunable_share * flow.density(step) for step in range(steps))
        return (2 * forward + steps) / 3 / self.steps

    def _finite(self, weights: Weights) -> Weights:
        if not all(np.isfinite(value).all() for value in weights.values()):
            raise self._diverged()
        return weights

    def _diverged(self) -> InputError:
        recipe = self.recipe
        rates, advice = f"learning_rate {recipe.learning_rate}", "lower it"
        if recipe.method in FINE_TUNED:
            rates, advice = f"{rates} and finetune_learning_rate {recipe.finetune_learning_rate}", "lower one of them"
        return InputError(f"recipe {recipe.name}: the loss must stay finite, and did not with {rates}; {advice}")

    def _penalties(
        self, masks: Masks, parameters: Mapping[str, nn.Parameter], finetune: bool
    ) -> list[tuple[nn.Parameter, float]]:
        """Return what an L1 norm in the loss pulls at, and how strongly."""
        recipe = self.recipe
        weights = [(parameters[name], recipe.l1) for name, mask in masks.items() if mask.ndim > 1]
        norms = [] if finetune else [(parameters[name], recipe.scale_l1) for name in scales(self.network).values()]
        return [(parameter, strength) for parameter, strength in weights + norms if strength > 0]

    def _optimizer(
        self, first: int, finetune: bool, average: bool
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        """Return a fresh optimiser and its schedule, standing at step ``first``."""
        recipe = self.recipe
        parameters = list(self.network.parameters())
        rate = recipe.finetune_learning_rate if finetune else recipe.learning_rate
        # foreach: one call for all parameters, the same bits as one call each.
        how: dict[str, Any] = {"lr": rate, "weight_decay": recipe.weight_decay, "foreach": True}
        optimizer: torch.optim.Optimizer
        if recipe.optimizer == "adam":
            optimizer = torch.optim.Adam(parameters, **how)
        else:
            optimizer = torch.optim.SGD(parameters, momentum=recipe.momentum, **how)
        tail = recipe.schedule_epochs - recipe.swa_epochs

        def factor(step: int) -> float:
            epoch = (first + step) / self.steps_per_epoch
            if finetune:
                return 1.0
            return recipe.swa_learning_rate / rate if average and epoch >= tail else rate_factor(recipe, epoch)

        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)

    def _batches(self, first: int, last: int, particle: int = 0) -> Iterator[tuple[int, Batch]]:
        """Yield number and samples of each step; every epoch has an order of its own."""
        size = self.steps_per_epoch
        for epoch in range(first // size, -(-last // size)):
            seed_torch(mixed(self.recipe.seed, particle, epoch))  # what dropout and a loader draw
            start = epoch * size
            steps = islice(
                enumerate(self.batches.epoch(self.recipe.seed, particle, epoch), start),
                max(first - start, 0),
                min(last - start, size),
            )
            yield from steps


def check_device(recipe: Recipe) -> str:
    """Return the device of the recipe. Raises InputError where it is not there."""
    if recipe.device == "cuda" and not torch.cuda.is_available():
        raise InputError(f"recipe {recipe.name}: device cuda must be there to be used, and is not; set device to cpu")
    return recipe.device


def _parameters_of(network: nn.Module) -> Weights:
    return {name: value.detach().cpu().numpy().copy() for name, value in network.named_parameters()}


def rate_factor(recipe: Recipe, epoch: float) -> float:
    """Return the learning rate at ``epoch``, which need not be whole, as a multiple of the first one."""
    if recipe.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * min(epoch / recipe.schedule_epochs, 1.0)))
    if recipe.schedule == "multistep":
        passed = sum(epoch >= milestone for milestone in recipe.milestones)
        return math.exp(min(passed * math.log(recipe.gamma), 60.0)) if recipe.gamma > 1 else recipe.gamma**passed
    return 1.0


def apply_masks(weights: Mapping[str, np.ndarray], masks: Masks) -> Weights:
    """Return the weights, 0 where masked (and +0, which a product with the mask would not always be)."""
    return {name: np.where(masks[name], w, np.float32(0)) if name in masks else w for name, w in weights.items()}
