"""Print what training networks at once by torch.func gains over one after the other: ``python benchmarks/stacked.py``.

Both ways take the same steps of SGD with momentum, in one call for all parameters, on one thread. Stacked, parameters
have a leading axis and one call of the vectorised network serves all. The ratio is the median of interleaved
repetitions of processor time on a quiet machine; above 1 stacking is faster. The last column is the largest difference
between weights after one step: the sums are made in another order.
"""

import time

import numpy as np
import torch
from torch.func import functional_call, stack_module_state, vmap

from gossamer.workloads.networks import build_network

CASES = [
    ("mlp-100-100", (64,), 3),
    ("mlp-100-100", (64,), 4),
    ("mlp-100-100", (64,), 16),
    ("lenet-300-100", (64,), 4),
    ("convnet-1d", (40,), 4),
    ("vit-digits", (1, 8, 8), 4),
]
BATCH, REPETITIONS = 64, 9


def seconds(act):
    start = time.process_time()
    act()
    return time.process_time() - start


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.01, momentum=0.9, foreach=True)


def step(parameters, optimizer, loss):
    for parameter in parameters:
        parameter.grad = None
    loss().backward()
    optimizer.step()


def compare(name, shape, count):
    """Return the ratio of times, and how far the weights are apart after one step."""
    networks = [build_network(name, shape) for _ in range(count)]
    inputs, labels = torch.rand(count, BATCH, *shape), torch.randint(0, 10, (count, BATCH))
    stacked = {key: value.detach().clone().requires_grad_() for key, value in stack_module_state(networks)[0].items()}
    alone = [list(network.parameters()) for network in networks]
    optimizers, at_once = [sgd(each) for each in alone], sgd(stacked.values())
    template = networks[0]
    forward = vmap(lambda parameters, fed: functional_call(template, parameters, (fed,)))
    cross_entropy = torch.nn.functional.cross_entropy

    def in_turn():
        for n, network in enumerate(networks):
            step(alone[n], optimizers[n], lambda n=n, network=network: cross_entropy(network(inputs[n]), labels[n]))

    def together():  # the sum of their losses, each a mean over its batch
        step(
            stacked.values(),
            at_once,
            lambda: count * cross_entropy(forward(stacked, inputs).flatten(0, 1), labels.flatten()),
        )

    in_turn()
    together()
    apart = max(
        float((stacked[key][n] - value).detach().abs().max())
        for n, network in enumerate(networks)
        for key, value in network.named_parameters()
    )
    steps = max(1, 200 // count // (1 if len(shape) == 1 and "mlp" in name else 4))
    ratios = []
    for _ in range(REPETITIONS):
        first, second = (seconds(lambda act=act: [act() for _ in range(steps)]) for act in (in_turn, together))
        ratios.append(first / second)
    return np.median(ratios), apart


def main():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for name, shape, count in CASES:
        ratio, apart = compare(name, shape, count)
        print(f"{name:14} {count:3} networks   {ratio:5.2f} x   {apart:.0e}", flush=True)


if __name__ == "__main__":
    main()
