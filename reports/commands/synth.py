"""The commands of ``gossamer synth``: traces and point clouds with declared statistics."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..terminal import check_outputs, make_folder, progress_bar
from .options import CloudOutOption, SeedOption

if TYPE_CHECKING:
    from ...workloads.points import Cloud


def eie(
    layer: Annotated[str, typer.Argument(metavar="LAYER|all", help="A layer of Table III, as in alex-7; or all.")],
    out: Annotated[Path, typer.Option(help="The .safetensors file, or for all the folder, to write.")],
    row_sigma: Annotated[float, typer.Option(help="Spread of the rows' densities (lognormal); real ones differ.")] = 0,
    seed: SeedOption = 0,
) -> None:
    """Make one of the nine layers of EIE's Table III (or all), of its size and densities, with random weights.

    Example: gossamer synth eie alex-7 --out alex-7.safetensors
    """
    from ...workloads import save_trace
    from ...workloads.synth import EIE_LAYERS, eie_layer

    if layer != "all":
        check_outputs(out)
    names = [known.name for known in EIE_LAYERS] if layer == "all" else [layer]
    with progress_bar("synth") as step:
        for done, name in enumerate(names):
            step(done, len(names), name)
            trace = eie_layer(name, row_sigma=row_sigma, seed=seed)
            path = out / f"{trace.name}.safetensors" if layer == "all" else out
            if layer == "all":
                make_folder(out)
            save_trace(trace, path)
            typer.echo(f"{path}: {trace.name}, {trace.layers[0].shape}, {1 - trace.sparsity:.1%} of weights kept")


def random(
    out: Annotated[Path, typer.Option(help="The .safetensors file to write.")],
    rows: Annotated[int, typer.Option(help="Outputs.")] = 1024,
    cols: Annotated[int, typer.Option(help="Inputs.")] = 1024,
    density: Annotated[float, typer.Option(help="Share of weights that are kept.")] = 0.1,
    act_density: Annotated[float, typer.Option(help="Share of activations that are nonzero.")] = 0.35,
    row_sigma: Annotated[float, typer.Option(help="Spread of the rows' densities (lognormal).")] = 0,
    samples: Annotated[int, typer.Option(help="Inputs in the batch.")] = 1,
    bias: Annotated[bool, typer.Option("--bias", help="Add a bias.")] = False,
    seed: SeedOption = 0,
) -> None:
    """Make a random linear layer.

    Example: gossamer synth random --rows 512 --cols 256 --density 0.1 --out random.safetensors
    """
    from ...workloads import save_trace
    from ...workloads.synth import random_layer

    check_outputs(out)
    trace = random_layer(
        rows, cols, density, act_density, row_sigma=row_sigma, seed=seed, samples=samples, bias=bias, name=out.stem
    )
    save_trace(trace, out)
    typer.echo(f"{out}: {trace.name}, {trace.layers[0].shape}, {1 - trace.sparsity:.1%} of weights kept")


def gemm(
    rows: Annotated[int, typer.Option(help="Outputs: rows of the weight.")],
    reduction: Annotated[int, typer.Option(help="Inputs: what is summed up.")],
    columns: Annotated[int, typer.Option(help="Input vectors in the batch.")],
    out: Annotated[Path, typer.Option(help="The .safetensors file to write.")],
    pattern: Annotated[str, typer.Option(metavar="N:M|V:N:M|dense|random:D", help="Which weights are kept.")] = "2:4",
    act_density: Annotated[float, typer.Option(help="Share of activations that are nonzero.")] = 1.0,
    seed: SeedOption = 0,
) -> None:
    """Make a matrix product: a linear layer in an N:M pattern, with a batch of input vectors.

    Example: gossamer synth gemm --rows 256 --reduction 512 --columns 64 --pattern 2:4 --out gemm.safetensors
    """
    from ...workloads import save_trace
    from ...workloads.synth import gemm_layer

    check_outputs(out)
    with progress_bar("synth"):
        trace = gemm_layer(rows, reduction, columns, pattern, act_density=act_density, seed=seed, name=out.stem)
        save_trace(trace, out)
    typer.echo(f"{out}: {trace.name}, {trace.layers[0].shape} x {columns}, {1 - trace.sparsity:.1%} of weights kept")


def ese(
    out: Annotated[Path, typer.Option(help="The .safetensors file to write.")],
    row_sigma: Annotated[float, typer.Option(help="Spread of the rows' scales (lognormal); real ones differ.")] = 0,
    pruning: Annotated[
        str, typer.Option(metavar="balanced|global", help="Each PE's share alike, or one threshold a matrix.")
    ] = "balanced",
    samples: Annotated[int, typer.Option(help="Voice vectors in the batch.")] = 32,
    steps: Annotated[int, typer.Option(help="Steps of each.")] = 1,
    seed: SeedOption = 0,
) -> None:
    """Make the LSTM of the ESE paper, of its size and its number of stored entries, with random weights.

    Example: gossamer synth ese --out ese.safetensors
    """
    from ...workloads import save_trace
    from ...workloads.synth.ese import ENTRIES, PES, ese_lstm

    check_outputs(out)
    with progress_bar("synth"):
        trace = ese_lstm(row_sigma=row_sigma, pruning=pruning, samples=samples, steps=steps, seed=seed)
        save_trace(trace, out)
    kept = f"{1 - trace.sparsity:.1%} of weights kept, {ENTRIES:,} entries on {PES} PEs"
    typer.echo(f"{out}: {trace.name}, {trace.layers[0].shape}, {kept}")


def lidar(out: CloudOutOption, seed: SeedOption = 0) -> None:
    """Make a scan of a street by a spinning LiDAR of 64 beams, with remission, as sparse as a real one.

    Example: gossamer synth lidar --out scan.bin
    """
    from ...workloads.points import lidar

    _write_cloud(lambda: lidar(seed), out, voxel_size=0.05)


def room(out: CloudOutOption, seed: SeedOption = 0) -> None:
    """Make a furnished room, its surfaces scanned densely.

    Example: gossamer synth room --out room.npy
    """
    from ...workloads.points import room

    _write_cloud(lambda: room(seed), out, voxel_size=0.05)


def cad(
    out: CloudOutOption,
    shape: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which object; the seed chooses one without.")
    ] = None,
    points: Annotated[int, typer.Option(metavar="N", help="How many points of its surface.")] = 1024,
    seed: SeedOption = 0,
) -> None:
    """Make one object, a solid or a piece of furniture, in the unit sphere.

    Example: gossamer synth cad --out object.ply
    """
    from ...workloads.points import cad

    _write_cloud(lambda: cad(seed, shape, points=points), out)


def _write_cloud(make: Callable[[], Cloud], out: Path, voxel_size: float | None = None) -> None:
    """Write the cloud and say what it is like; with ``voxel_size``, to a sparse network."""
    from ...workloads.points import write_cloud
    from ...workloads.points.files import WRITTEN_SUFFIXES
    from ...workloads.points.statistics import statistics

    check_outputs(out, suffixes=WRITTEN_SUFFIXES)
    with progress_bar("synth"):
        cloud = make()
        write_cloud(cloud, out)
    text = f"{out}: {cloud.name}, {len(cloud.points):,} points"
    if voxel_size is not None:
        found = statistics(cloud.points, voxel_size, (1,))
        text += f", {found.voxels[0]:,} voxels of {voxel_size:g} m with {found.neighbours[0]:.2f} neighbours of 27"
    typer.echo(text)
