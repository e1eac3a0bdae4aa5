"""Results to show, and a browser for the tests that look at what is drawn, where there is one."""

import shutil

import pytest

from gossamer.models import load_machine, vary
from gossamer.simulator import simulate
from gossamer.workloads.synth import random_layer
from gossamer.workloads.trace import Trace

from .html_page import EIE, named

QUIET = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="session")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=QUIET)
        yield found
        found.close()


@pytest.fixture(scope="session")
def layers():
    parts = [random_layer(300, 200, 0.1, 0.4, name="fc1"), random_layer(10, 300, 0.3, 0.5, name="fc2")]
    return Trace(name="pruned", layers=[part.layers[0] for part in parts])


@pytest.fixture(scope="session")
def results(layers):
    dense = Trace(name="dense", layers=random_layer(300, 200, 1.0, 0.4, name="fc1").layers)
    pruned = named(layers, "pruned", accuracy=0.9625, network="net", seed=7, recipe={"rate": 0.2})
    return [
        simulate(EIE, pruned),
        simulate(EIE, named(dense, "dense", accuracy=0.9775, network="net")),
        simulate(vary(EIE, pe_count=16), pruned),
        simulate(load_machine("systolic-16x16"), pruned),
        simulate(load_machine("a100-sparse"), named(layers, "pruned", network="other")),
    ]
