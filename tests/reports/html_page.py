"""Results to show, and what a browser would see of their page."""

from functools import cache
from html.parser import HTMLParser

import msgspec

from gossamer.models import load_machine, vary
from gossamer.simulator import simulate
from gossamer.workloads.synth import random_layer
from gossamer.workloads.trace import Trace

EIE = load_machine("eie-64pe")
VOID = {"meta", "link", "br"}


class Page(HTMLParser):
    """What a browser would see: text by place, tables by section, attributes, and that every tag is closed."""

    def __init__(self, source):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.tables, self.words, self.scripts = [], [], [], [], []
        self.feed(source)
        self.close()
        assert self.open == [], "tags are left open"

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "script" in self.open:
            self.scripts.append(data)
        elif "style" not in self.open:
            self.words.append(data)
            if "td" in self.open or "th" in self.open:
                self.tables[-1][-1][-1] += data

    def count(self, tag):
        return sum(found == tag for found, _ in self.tags)


def named(trace, name, **provenance):
    return Trace(name=name, layers=trace.layers, provenance=provenance)


@cache
def small_result():
    """A result with all that a page can show of one: provenance, a warning, and units of a kind."""
    trace = Trace(name="a", layers=random_layer(8, 10, 0.5, 0.5).layers, provenance={"recipe": {"a": 1}})
    return msgspec.structs.replace(simulate(vary(EIE, pe_count=2), trace), warnings=["told"])


@cache
def hundred():
    """A hundred results, each with ten layers of 256 PEs and a config of its own."""
    base = simulate(vary(EIE, pe_count=256), Trace(name="pruned", layers=random_layer(300, 200, 0.1, 0.4).layers))
    layers = [msgspec.structs.replace(base.layers[0], name=f"stage{place}.conv") for place in range(10)]
    config = base.machine.config
    return [
        msgspec.structs.replace(
            base, layers=layers, machine=msgspec.structs.replace(base.machine, config=config | {"queue_depth": depth})
        )
        for depth in range(2, 102)
    ]
