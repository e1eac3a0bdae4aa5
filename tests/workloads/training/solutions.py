"""Small networks, their solutions and samples, of the tests of diagnostics."""

import torch
from torch import nn
from torch.nn.functional import cross_entropy


def state(module):
    return {name: value.detach().numpy().copy() for name, value in module.state_dict().items()}


def drawn(maker, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return maker()


def small():
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


def normed():
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 3))


def samples(count, seed=0, batch=7):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 4, generator=generator)
    labels = torch.randint(3, (count,), generator=generator)
    return list(zip(inputs.split(batch), labels.split(batch), strict=True))


LOADER = samples(20)
WHOLE = samples(20, batch=20)
A, B, C = (state(drawn(small, seed)) for seed in (1, 2, 3))


def loss_at(solution, maker=small, loader=LOADER):
    module = maker().eval()
    module.load_state_dict({name: torch.from_numpy(value) for name, value in solution.items()})
    inputs, labels = (torch.cat(parts) for parts in zip(*loader, strict=True))
    with torch.no_grad():
        return float(cross_entropy(module(inputs), labels))


def trained_statistics(seed):
    module = drawn(normed, seed)
    module.train()
    for inputs, _ in samples(30, seed=seed):
        module(inputs)
    return state(module)
