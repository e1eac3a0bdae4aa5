"""NetAdapt, and AMC, against the even network of equal simulated cost, over three seeds: the tables of the how-to.

    python benchmarks/search.py netadapt
    python benchmarks/search.py amc

Networks on the digits; one core, about a minute a row. Times are process times of the search alone.
"""

import sys

import numpy as np

from gossamer.models import load_machine
from gossamer.reports.search import Job, run_job

SEEDS = (0, 1, 2)
LSTM = {
    "network": "lstm-64",
    "data": "digits-rows",
    "optimizer": "adam",
    "learning_rate": 0.005,
    "finetune_learning_rate": 0.002,
    "samples": 2,
}
CASES = (
    ("lenet-digits-dense", "systolic-32x32", {}, "channels", ("latency", 0.25), {}),
    ("lenet-digits-dense", "systolic-8x8", {}, "channels", ("latency", 0.1), {}),
    ("convnet-digits-dense", "systolic-8x8", {}, "channels", ("latency", 0.25), {}),
    ("lenet-digits-dense", "eie-64pe", {"pe_count": 4}, "sparsity", ("latency", 0.1), {}),
    ("convnet-digits-dense", "eie-64pe", {"pe_count": 4}, "sparsity", ("latency", 0.2), {}),
    ("lenet-digits-dense", "ese", {}, "sparsity", ("latency", 0.65), {"pe_count": 32, "changes": LSTM}),
    ("lenet-digits-dense", "sparseloop-stc", {}, "nm", ("latency", 0.517), {"ns": "1,2"}),
    ("lenet-digits-dense", "a100-muxes", {}, "nm", ("energy", 0.256), {"ns": "1,2,3,4,5,6,7,8,12", "m": 16}),
)


def main(method: str) -> None:
    print(f"{method}: test accuracy in %, mean and spread over seeds {SEEDS}")
    for source, machine, changes, kind, target, more in CASES:
        job = Job(
            method=method,
            source=source,
            machine=load_machine(machine, **changes),
            target=target,
            kind=kind,
            **({"changes": {"finetune_learning_rate": 0.05}} | more),
        ).checked()
        pairs = [run_job(job, seed) for seed in SEEDS]
        columns = {
            "dense": [pair.accuracy for pair in pairs],
            method: [pair.found.candidate.test_accuracy() for pair in pairs],
            "even": [pair.even.candidate.test_accuracy() for pair in pairs],
        }
        words = [f"{name} {100 * np.mean(v):.2f} ± {100 * np.std(v, ddof=1):.2f}" for name, v in columns.items()]
        cost = [f"{np.mean([each.ratio for each in side]):.4f}" for side in (
            [pair.found for pair in pairs], [pair.even for pair in pairs])]  # fmt: skip
        off = max(abs(pair.found.cost / pair.found.target - 1) for pair in pairs)
        ahead = sum(a > b for a, b in zip(columns[method], columns["even"], strict=True))
        level = sum(a == b for a, b in zip(columns[method], columns["even"], strict=True))
        print(f"{source} {machine} {kind} {target[0]}={target[1]}: {'; '.join(words)}")
        print(
            f"    cost of dense {' and '.join(cost)}; off target by {100 * off:.2f} % at most; ahead {ahead}, level "
            f"{level} of {len(SEEDS)}; {max(pair.cpu_s for pair in pairs):.1f} s at most",
            flush=True,
        )
        for name in (method, "even"):
            for pair in pairs:
                each = pair.found if name == method else pair.even
                kept = ", ".join(f"{layer} {choice:.3g}" for layer, choice in each.summary()["choices"].items())
                accuracy = 100 * each.candidate.test_accuracy()
                print(f"    {name} seed {pair.seed}: {accuracy:.2f} at {each.ratio:.4f}: {kept}")


if __name__ == "__main__":
    main(*sys.argv[1:])
