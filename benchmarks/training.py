"""Print what our training loop costs over a plain one, and how long IMP takes: ``python benchmarks/training.py``.

Both loops run the same steps of the same network from the same recipe, with torch's SGD and a cosine, on one thread.
The plain one is that of a tutorial: it gathers its batches, masks nothing and watches nothing. Repetitions take turns,
and the ratio is the median of those within one repetition, with its quartiles. Times are of the processor. IMP is 21
levels of 30 epochs of the MLP 64-100-100-10 on digits.
"""

import time

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


def compare(network, data):
    """Print the ratio of our loop to the plain one, dense and with 95 % of the weights masked."""
    loop = Loop.of(load_recipe("lenet-digits-imp", network=network, data=data, epochs=EPOCHS))
    full = loop.full_masks()
    rng = np.random.default_rng(0)
    sparse = {name: rng.random(mask.shape) < 0.05 for name, mask in full.items()}
    start = loop.weights()
    acts = {
        "plain torch loop": lambda: plain(loop),
        "ours, dense": lambda: loop.train(start, full, 0, loop.steps),
        "ours, 95 % masked": lambda: loop.train(start, sparse, 0, loop.steps),
    }
    for act in acts.values():
        act()
    times = np.array([[seconds(act) for act in acts.values()] for _ in range(REPETITIONS)])
    print(f"{network} on {data}")
    for name, each, ratio in zip(acts, times.T, (times / times[:, :1]).T, strict=True):
        low, middle, high = np.quantile(ratio, (0.25, 0.5, 0.75))
        print(f"  {name:20} {1e6 * np.median(each) / loop.steps:8.1f} us a step {middle:6.2f} x ({low:.2f}-{high:.2f})")


def main():
    torch.set_num_threads(1)
    compare("mlp-100-100", "digits")
    compare("convnet-digits", "digits-images")
    levels = load_recipe("lenet-digits-imp", network="mlp-100-100", epochs=30, sparsity=1 - 0.8**20)
    begun = time.perf_counter()
    count = sum(1 for _ in METHODS["imp"].solutions(Loop.of(levels)))
    print(f"IMP, {count} levels of {levels.epochs} epochs: {time.perf_counter() - begun:.1f} s")


if __name__ == "__main__":
    main()
