"""SWAMP against IMP over three seeds, as it is: the table of docs/background/pruning.md.

    python benchmarks/swamp_against_imp.py mlp-100-100 digits 30
    python benchmarks/swamp_against_imp.py convnet-digits digits-images 15

Arguments: network, data, epochs a level. One core, some minutes each.
"""

import sys

import numpy as np

from gossamer.workloads.training import Recipe, train

SEEDS = (0, 1, 2)
SHOWN = (0.0, 0.672, 0.893, 0.956, 0.972, 0.982)  # sparsities of levels 0, 5, 10, 14, 16 and 18


def recipe(network: str, data: str, epochs: int, seed: int, particles: int, averaged: bool) -> Recipe:
    return Recipe(
        name="measured",
        network=network,
        data=data,
        seed=seed,
        method="imp" if particles == 1 else "swamp",
        particles=particles,
        sparsity=1 - 0.8**18,
        rewind_step=23,  # one epoch
        epochs=epochs,
        swa_epochs=epochs // 4 if averaged else 0,
        learning_rate=0.1,
        schedule="cosine",
    )


def main(network: str, data: str, epochs: str) -> None:
    print(f"{network} on {data}, {epochs} epochs a level, accuracy in % at sparsity:")
    print(" " * 28 + "".join(f"{100 * sparsity:>14.1f} " for sparsity in SHOWN), flush=True)
    for particles, averaged in ((1, False), (1, True), (4, False), (4, True)):
        found = np.array(
            [
                [min(run.history, key=lambda level: abs(level.sparsity - sparsity)).accuracy for sparsity in SHOWN]
                for run in (train(recipe(network, data, int(epochs), seed, particles, averaged)) for seed in SEEDS)
            ]
        )
        name = f"{particles} particle{'s' if particles > 1 else ''}, SWA {'on' if averaged else 'off'}"
        cells = zip(100 * found.mean(axis=0), 100 * found.std(axis=0, ddof=1), strict=True)
        print(f"{name:<28}" + "".join(f"{mean:>8.2f} ± {spread:<4.2f}" for mean, spread in cells), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
