"""AMC against uniform pruning and random search at equal simulated latency: figures of docs/how-to/prune-for-cycles.md.

    python benchmarks/amc.py lenet-digits-dense sparsity eie-64pe 0.6
    python benchmarks/amc.py lenet-digits-dense sparsity eie-64pe 0.12 --set pe_count=4
    python benchmarks/amc.py mlp-digits-imp channels systolic-16x16 0.29 --seeds 10 11 12

Arguments: recipe (its network and schedule, trained dense first), kind, machine, the share of the dense network's
cycles that may be left. Seeds 0 to 4 served to choose how actions are mapped; the default ones did not.
All three end with the same epochs of fine-tuning, and are held to the target after it: uniform pruning may cost 1 %
more than the target. Random search is AMC's own walk with every action drawn, none learnt: the same wall, the same
number of episodes. One core, about 20 s a seed.
"""

import argparse
import time
from collections.abc import Callable
from statistics import mean, stdev

import torch

from gossamer.models import load_machine
from gossamer.simulator import simulate
from gossamer.workloads.search import Space, Trained
from gossamer.workloads.search.amc import run_amc
from gossamer.workloads.search.channels import ChannelSpace
from gossamer.workloads.search.found import Found
from gossamer.workloads.search.patterns import NmSpace
from gossamer.workloads.search.sparsities import SparsitySpace
from gossamer.workloads.search.table import Table
from gossamer.workloads.search.uniform import uniform
from gossamer.workloads.trace import Trace
from gossamer.workloads.training import load_recipe

SPACES: dict[str, Callable[[Trained], Space]] = {
    "sparsity": SparsitySpace,
    "channels": ChannelSpace,
    "nm": lambda trained: NmSpace(trained, m=8, ns=(1, 2, 4)),
}
EPISODES, EPOCHS = 400, 10


def tuned_uniform(space: Space, cost: Callable[[Trace], float], target: float) -> Found:
    """Return the uniform network that costs nearest to ``target``, at most 1 % more, after fine-tuning."""
    found = uniform(space, cost, target, epochs=EPOCHS)
    low, high, share, best = 0.0, 1.0, 1.0, None
    for _ in range(8):
        if found.cost > 1.01 * target:
            high = share
        else:
            low = share
            best = found if best is None or found.cost > best.cost else best
            if found.cost >= 0.99 * target:
                break
        share = (low + high) / 2 if low else share * target / found.cost
        found = uniform(space, cost, share * target, epochs=EPOCHS)
    return best or found


def untuned_uniform(space: Space, cost: Callable[[Trace], float], target: float) -> Found:
    """Return the uniform network that costs nearest to ``target``, at most 1 % more, without fine-tuning."""
    for percent in range(100, 0, -1):
        found = uniform(space, cost, target * percent / 100)
        if found.cost <= 1.01 * target:
            return found
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("recipe", "kind", "machine"):
        parser.add_argument(name)
    parser.add_argument("target", type=float)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=NUMBER")
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12])
    given = parser.parse_args()
    torch.set_num_threads(1)
    machine = load_machine(given.machine, **{key: int(value) for key, value in (each.split("=") for each in given.set)})

    def cost(trace: Trace) -> float:
        return float(simulate(machine, trace).total.cycles)

    columns: dict[str, list[float]] = {}
    for seed in given.seeds:
        trained = Trained.of(load_recipe(given.recipe), seed=seed)
        space = SPACES[given.kind](trained)
        started = time.process_time()
        found = run_amc(space, cost, given.target, seed=seed, episodes=EPISODES, epochs=EPOCHS)
        spent = time.process_time() - started
        drawn = run_amc(
            space, cost, given.target, seed=seed, episodes=EPISODES, warm_up=EPISODES - 1, epochs=EPOCHS,
            table=Table(space, cost),
        )  # fmt: skip
        plain = untuned_uniform(space, cost, found.target)
        tuned = tuned_uniform(space, cost, found.target)
        row = {
            "dense, validation %": 100 * trained.accuracy,
            "dense, test %": 100 * space.dense.test_accuracy(),
            "untuned, AMC, validation %": 100 * found.before_tuning,
            "untuned, random, validation %": 100 * drawn.before_tuning,
            "untuned, uniform, validation %": 100 * plain.candidate.accuracy(),
            "untuned, uniform, cost / target": plain.cost / found.target,
            "tuned, AMC, validation %": 100 * found.candidate.accuracy(),
            "tuned, random, validation %": 100 * drawn.candidate.accuracy(),
            "tuned, uniform, validation %": 100 * tuned.candidate.accuracy(),
            "tuned, AMC, test %": 100 * found.candidate.test_accuracy(),
            "tuned, random, test %": 100 * drawn.candidate.test_accuracy(),
            "tuned, uniform, test %": 100 * tuned.candidate.test_accuracy(),
            "tuned, AMC, cost / target": found.cost / found.target,
            "tuned, random, cost / target": drawn.cost / found.target,
            "tuned, uniform, cost / target": tuned.cost / found.target,
            "best episode": float(found.steps[-1].step),
            "CPU s of AMC": spent,
        }
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
        kept = " ".join(f"{choice:.3g}" for choice in found.candidate.choices)
        print(f"seed {seed}: AMC keeps {kept}", flush=True)
    print(f"{given.recipe}, {given.kind} on {given.machine} {given.set} at {given.target:g}, seeds {given.seeds}:")
    for name, values in columns.items():
        spread = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
        print(f"  {name:<34}{mean(values):>9.3f}{spread}   ({', '.join(f'{value:.3f}' for value in values)})")


if __name__ == "__main__":
    main()
