"""Print what our training loop costs over a plain one, and how long IMP takes: ``python benchmarks/training.py``.

The network is the MLP 64-100-100-10 on digits. Both loops run the same steps, with torch's SGD and a schedule, one
thread; the plain one gathers its batches, masks nothing and watches nothing. The ratio is the median over interleaved
repetitions of processor time on a quiet machine. IMP is 21 levels of 30 epochs.
"""

import time
from statistics import median

import numpy as np
import torch

from gossamer.workloads.training import load_recipe
from gossamer.workloads.training.loop import Loop
from gossamer.workloads.training.methods import METHODS

EPOCHS, REPETITIONS = 20, 15


def plain(loop):
    """Train as a tutorial does."""
    recipe = loop.recipe
    network = loop.fresh()
    inputs, labels = loop.batches.inputs, loop.batches.labels
    optimizer = torch.optim.SGD(network.parameters(), lr=recipe.learning_rate, momentum=recipe.momentum)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * len(loop.batches))
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(inputs)).split(recipe.batch_size):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(network(inputs[batch]), labels[batch])
            loss.backward()
            optimizer.step()
            schedule.step()


def seconds(act):
    start = time.process_time()
    act()
    return time.process_time() - start


def main():
    torch.set_num_threads(1)
    recipe = load_recipe("lenet-digits-imp", network="mlp-100-100", epochs=EPOCHS)
    loop = Loop.of(recipe)
    full = loop.full_masks()
    rng = np.random.default_rng(0)
    sparse = {name: rng.random(mask.shape) < 0.05 for name, mask in full.items()}
    start = loop.weights()
    acts = {
        "plain torch loop": lambda: plain(loop),
        "ours, dense": lambda: loop.train(start, full, 0, loop.steps),
        "ours, 95 % masked": lambda: loop.train(start, sparse, 0, loop.steps),
    }
    times = {name: [] for name in acts}
    for act in acts.values():
        act()
    for _ in range(REPETITIONS):
        for name, act in acts.items():
            times[name].append(seconds(act))
    base = median(times["plain torch loop"])
    for name, found in times.items():
        print(f"{name:20} {1e6 * median(found) / loop.steps:8.1f} us a step   {median(found) / base:5.2f} x")
    levels = load_recipe("lenet-digits-imp", network="mlp-100-100", epochs=30, sparsity=1 - 0.8**20)
    begun = time.perf_counter()
    count = sum(1 for _ in METHODS["imp"].solutions(Loop.of(levels)))
    print(f"IMP, {count} levels of {levels.epochs} epochs: {time.perf_counter() - begun:.1f} s")


if __name__ == "__main__":
    main()
