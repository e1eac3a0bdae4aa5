"""The scripts of the how-to on clusters: run but for sizes as they stand, with stand-ins for Slurm and Kubernetes.

They need dask-jobqueue and dask-kubernetes, which gossamer does not: without these they are skipped.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import gossamer
from gossamer.__main__ import main

PAGE = Path(__file__).resolve().parents[1] / "docs" / "how-to" / "sweep-on-a-cluster.md"
PATHS = os.pathsep.join(filter(None, [str(Path(gossamer.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]))
SWEEP = ["sweep", "lenet-digits-imp", "--grid", "pe_count=1,4,16", "--layer", "fc3", "--csv"]
# What stands in for Slurm: a job is a process of this machine.
SBATCH = "#!/bin/sh\ncp $1 job.sh; sh job.sh >job.log 2>&1 & echo $! >job.pid; echo Submitted batch job $!\n"
SCANCEL = "#!/bin/sh\nkill $1\n"


def needs(package):
    reason = f"{package.replace('_', '-')} is not installed; no extra brings it"
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=reason)


def script(name, folder, *changes):
    """Write the page's file ``name`` to ``folder``, with ``changes``, each of which must apply."""
    (text,) = re.findall(rf"^```python {re.escape(name)}\n(.*?)^```$", PAGE.read_text("utf-8"), re.M | re.S)
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    (folder / name).write_text(text)
    return folder / name


def check_sweep(tmp_path, address):
    """Sweep on the cluster and without it: the tables must be the same."""
    tables = []
    for options in (["--cluster", address], []):
        assert main([*SWEEP, str(tmp_path / "table.csv"), *options]) == 0
        tables.append((tmp_path / "table.csv").read_text())
    assert tables[0] == tables[1]


@needs("dask_jobqueue")
def test_jobs_that_the_slurm_script_submits_run_a_sweep(tmp_path):
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    sizes = [("cores=16, processes=16", "cores=2, processes=2"), ('"32GB"', '"2GB"'), ("jobs=20", "jobs=1")]
    path = script("slurm.py", tmp_path, *sizes)
    environment = os.environ | {"PYTHONPATH": PATHS, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    with subprocess.Popen([sys.executable, path], cwd=tmp_path, env=environment, text=True, stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:  # fmt: skip
        try:
            shown = []
            while not shown or not shown[-1].startswith("give --cluster "):
                shown.append(process.stdout.readline())
                assert shown[-1] or process.poll() is None, (tmp_path / "job.log").read_text()
            job = "".join(shown)
            for line in ("#SBATCH --cpus-per-task=2", "#SBATCH -t 02:00:00", "--nthreads 1 ", "--nworkers 2 "):
                assert line in job
            check_sweep(tmp_path, shown[-1].split()[2])
            process.communicate("\n", timeout=30)
            assert process.returncode == 0
        finally:
            process.kill()
            subprocess.run(["pkill", "-P", (tmp_path / "job.pid").read_text().strip()], check=False)


@needs("dask_kubernetes")
def test_what_the_kubernetes_script_describes_runs_a_sweep(tmp_path):
    path = script("describe.py", tmp_path)
    environment = os.environ | {"PYTHONPATH": PATHS}
    subprocess.run([sys.executable, path], cwd=tmp_path, env=environment, check=True)
    described = json.loads((tmp_path / "sweep.json").read_text())
    assert (described["apiVersion"], described["kind"]) == ("kubernetes.dask.org/v1", "DaskCluster")
    assert described["metadata"] == {"name": "sweep"}
    assert described["spec"]["worker"]["replicas"] == 20
    ports = {port["name"]: port["port"] for port in described["spec"]["scheduler"]["service"]["ports"]}
    assert ports["tcp-comm"] == 8786
    # The command lines of both containers, as their image would run them.
    lines = [described["spec"][what]["spec"]["containers"][0]["args"] for what in ("scheduler", "worker")]
    assert [line[0] for line in lines] == ["dask", "dask"]
    where = tmp_path / "scheduler.json"
    processes = []

    def start(line, *options, **more):
        command = [sys.executable, "-m", *(word.replace("$(DASK_WORKER_NAME)", "one") for word in line), *options]
        with (tmp_path / "log").open("a") as log:
            processes.append(subprocess.Popen(command, cwd=tmp_path, env=environment | more, stdout=log, stderr=log))

    try:
        start(lines[0], "--port", "0", "--dashboard-address", ":0", "--scheduler-file", str(where))
        waited = time.monotonic() + 30
        while not where.exists() or not where.read_text():
            assert time.monotonic() < waited, (tmp_path / "log").read_text()
            time.sleep(0.05)
        address = json.loads(where.read_text())["address"]
        start(lines[1], DASK_SCHEDULER_ADDRESS=address)
        check_sweep(tmp_path, address)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(timeout=20)
