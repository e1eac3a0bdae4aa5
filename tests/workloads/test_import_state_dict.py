import pickle

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch import nn
from torch.nn.utils import parametrize, prune

from gossamer.models import load_machine
from gossamer.simulator import simulate
from gossamer.workloads import load_trace, save_trace
from gossamer.workloads.errors import InputError
from gossamer.workloads.files.drawn import Draw
from gossamer.workloads.importers import import_model, notes_of
from gossamer.workloads.importers.door import is_model
from gossamer.workloads.importers.state_dict import is_state_dict, trace_of_state_dict
from gossamer.workloads.importers.tensors import open_state_dict
from gossamer.workloads.patterns import Pattern

DRAW = Draw(act_density=0.5, samples=2, seed=3, input_size=(6, 5))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(10, 8)
        self.conv = nn.Conv2d(4, 6, 3)
        self.line = nn.Conv1d(4, 6, 3)
        self.deep = nn.Conv3d(2, 2, 2)
        self.norm = nn.BatchNorm2d(6)
        self.mix = nn.MultiheadAttention(8, 2)
        self.steps = nn.LSTM(8, 4, bidirectional=True)
        self.cell = nn.GRUCell(8, 4)
        self.head = nn.Linear(8, 10)
        self.scale = nn.Parameter(torch.ones(2, 2))


@pytest.fixture(scope="module")
def net():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Net()


def written(path, state):
    if path.suffix == ".safetensors":
        from safetensors.torch import save_file as save_torch

        save_torch({name: value.contiguous() for name, value in state.items()}, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("name", ["net.safetensors", "net.pt", "net.pth"])
def test_every_matrix_of_a_module_is_a_layer_and_every_other_tensor_is_listed(net, tmp_path, name):
    trace = trace_of_state_dict(written(tmp_path / name, net.state_dict()), draw=DRAW)
    state = net.state_dict()
    met = {layer.name: (layer.op, layer.shape) for layer in trace.layers}
    assert met == {
        "conv": ("conv2d", (6, 4, 3, 3)),
        "line": ("conv2d", (6, 4, 1, 3)),
        "mix.q_proj": ("linear", (8, 8)),
        "mix.k_proj": ("linear", (8, 8)),
        "mix.v_proj": ("linear", (8, 8)),
        "mix.out_proj": ("linear", (8, 8)),
        "steps.ih_l0": ("linear", (16, 8)),
        "steps.hh_l0": ("linear", (16, 4)),
        "steps.ih_l0_reverse": ("linear", (16, 8)),
        "steps.hh_l0_reverse": ("linear", (16, 4)),
        "cell.ih": ("linear", (12, 8)),
        "cell.hh": ("linear", (12, 4)),
        "head": ("linear", (10, 8)),
    }
    by_name = {layer.name: layer for layer in trace.layers}
    np.testing.assert_array_equal(by_name["head"].bias, state["head.bias"])
    np.testing.assert_array_equal(by_name["mix.k_proj"].weight, state["mix.in_proj_weight"][8:16])
    np.testing.assert_array_equal(by_name["mix.k_proj"].bias, state["mix.in_proj_bias"][8:16])
    np.testing.assert_array_equal(by_name["steps.hh_l0_reverse"].bias, state["steps.bias_hh_l0_reverse"])
    assert by_name["line"].inputs.shape == (2, 4, 6, 5)
    assert trace.provenance["not_simulated"] == {
        "embed.weight": "an embedding, by its name",
        "deep.weight": "a weight of 5 dimensions",
        "deep.bias": "one value a channel, as of a norm or a bias",
        "norm.weight": "one value a channel, as of a norm or a bias",
        "norm.bias": "one value a channel, as of a norm or a bias",
        "norm.running_mean": "one value a channel, as of a norm or a bias",
        "norm.running_var": "one value a channel, as of a norm or a bias",
        "norm.num_batches_tracked": "int64 is no weight",
        "scale": "a parameter called scale, not weight",
    }
    assert trace.provenance["drawn_inputs"]["act_density"] == 0.5
    assert "not simulated, a weight of 5 dimensions: deep.weight" in notes_of(trace)


def test_pruned_modules_of_three_tools_come_back_masked(tmp_path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net = nn.Sequential(nn.Linear(16, 8), nn.Linear(8, 8), nn.Linear(8, 4))
    prune.l1_unstructured(net[0], "weight", amount=0.6)
    groups = net[1].weight.detach().abs().reshape(-1, 4)
    mask = (groups >= groups.sort(1).values[:, 2:3]).reshape(8, 8)

    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mask", mask)

        def forward(self, weight):
            return weight * self.mask

    parametrize.register_parametrization(net[1], "weight", Masked())
    net[2].register_buffer("__weight_mma_mask", torch.arange(32).reshape(4, 8) % 4 < 2)
    path = written(tmp_path / "net.safetensors", net.state_dict())
    assert is_state_dict(str(path))
    trace = trace_of_state_dict(path, draw=DRAW)
    assert [layer.name for layer in trace.layers] == ["0", "1", "2"]
    np.testing.assert_array_equal(trace.layers[0].weight, net[0].weight.detach())
    np.testing.assert_array_equal(trace.layers[1].weight, net[1].weight.detach())
    assert [layer.pattern for layer in trace.layers] == [Pattern(), *[Pattern("n:m", n=2, m=4, axis=1)] * 2]
    result = simulate(load_machine("a100-sparse"), trace)
    assert [layer.macs for layer in result.layers][1] == 2 * 32


def test_a_sparsifier_that_keeps_its_mask_out_of_the_file_is_pointed_out(tmp_path):
    from torch.ao.pruning import WeightNormSparsifier

    net = nn.Sequential(nn.Linear(8, 8))
    sparsifier = WeightNormSparsifier(sparsity_level=1.0, sparse_block_shape=(1, 4), zeros_per_block=2)
    sparsifier.prepare(net, [{"tensor_fqn": "0.weight"}])
    sparsifier.step()
    state = {name: value for name, value in net.state_dict().items() if isinstance(value, torch.Tensor)}
    trace = trace_of_state_dict(written(tmp_path / "raw.pt", state), draw=DRAW)
    assert trace.sparsity == 0
    assert notes_of(trace) == [
        "parametrized, and the file has no mask: taken as before any mask, save after squash_mask: 0.weight"
    ]
    sparsifier.squash_mask()
    squashed = trace_of_state_dict(written(tmp_path / "squashed.pt", net.state_dict()), draw=DRAW)
    assert squashed.sparsity == 0.5
    assert squashed.layers[0].pattern == Pattern("n:m", n=2, m=4, axis=1)
    assert notes_of(squashed) == []


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model_state", "model", "generator"])
def test_a_checkpoint_may_hold_the_state_dict_under_a_usual_name(tmp_path, key):
    path = tmp_path / "run.pt"
    state = {"fc.weight": torch.ones(2, 4), "fc.bias": torch.ones(2, dtype=torch.bfloat16)}
    torch.save({"epoch": 3, key: state, "optimizer": {"lr": 0.1}}, path)
    tensors = open_state_dict(path)
    assert {name: info.dtype for name, info in tensors.infos.items()} == {"fc.weight": "float32", "fc.bias": "float32"}
    assert tensors.read("fc.bias").dtype == np.float32


def test_two_networks_in_a_checkpoint_are_no_state_dict(tmp_path):
    path = tmp_path / "gan.ckpt"
    torch.save({"generator": {"fc.weight": torch.ones(2, 4)}, "critic": {"fc.weight": torch.ones(4, 2)}}, path)
    assert message(path) == (
        f"{path}: the file must hold a state dict, and has the keys generator, critic; save model.state_dict()"
    )


def test_numbers_beside_the_tensors_of_a_state_dict_are_no_tensors(tmp_path):
    path = tmp_path / "net.ckpt"
    torch.save({"fc.weight": torch.ones(2, 4), "fc.heads": 4}, path)
    assert is_model(str(path))
    assert list(open_state_dict(path).infos) == ["fc.weight"]


def test_sparse_tensors_become_dense(tmp_path):
    path = tmp_path / "s.pt"
    torch.save({"fc.weight": torch.eye(4).to_sparse()}, path)
    np.testing.assert_array_equal(open_state_dict(path).read("fc.weight"), np.eye(4))


class Trap:
    def __reduce__(self):
        return (print, ("code of the file was run",))


def message(path, **options):
    with pytest.raises(InputError) as error:
        import_model(path, draw={"act_density": 0.5}, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_pickle_with_code_in_it_is_refused_and_not_run(tmp_path, capsys):
    path = tmp_path / "trap.pt"
    torch.save({"fc.weight": torch.ones(2, 2), "more": Trap()}, path)
    assert message(path).startswith(f"{path}: the file must hold tensors alone to be read without running code of it, ")
    assert message(path).endswith("save model.state_dict(), best as .safetensors")
    path.write_bytes(pickle.dumps(Trap()))
    assert message(path).endswith("save model.state_dict(), best as .safetensors")
    torch.save(nn.Linear(2, 2), path)
    assert message(path) == (
        f"{path}: the file must hold tensors alone to be read without running code of it, and does not (it needs "
        "torch.nn.modules.linear.Linear); save model.state_dict(), best as .safetensors"
    )
    assert "code" not in capsys.readouterr().out


def test_a_plain_pickle_is_no_point_cloud(tmp_path, capsys):
    for protocol in range(2, 6):
        path = tmp_path / f"{protocol}.bin"
        path.write_bytes(pickle.dumps({"fc.weight": Trap()}, protocol))
        assert is_model(str(path))
        assert message(path).endswith("save model.state_dict(), best as .safetensors")
    assert capsys.readouterr().out == ""


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_program_of_torchscript_is_refused_as_one(tmp_path):
    path = tmp_path / "program.pt"
    torch.jit.script(nn.Linear(2, 2)).save(path)
    assert message(path) == (
        f"{path}: the file must hold tensors alone to be read without running code of it, and does not (it is a "
        "TorchScript archive, which is a program); save model.state_dict(), best as .safetensors"
    )


@pytest.mark.parametrize("cut", [0, 1, 30, 200, 700])
def test_a_damaged_pickle_is_refused(tmp_path, cut):
    path = tmp_path / "cut.pt"
    torch.save({"fc.weight": torch.ones(2, 2)}, path)
    path.write_bytes(path.read_bytes()[:cut])
    assert message(path).startswith(f"{path}: the file must hold tensors alone ")


def test_what_is_no_state_dict_is_refused(tmp_path):
    path = tmp_path / "list.pt"
    torch.save([torch.ones(2)], path)
    assert message(path) == f"{path}: the file must hold a state dict, and has list; save model.state_dict()"
    torch.save({"epoch": 1, "best": 0.5}, path)
    assert message(path) == (
        f"{path}: the file must hold a state dict, and has the keys epoch, best; save model.state_dict()"
    )
    torch.save({"norm.weight": torch.ones(4)}, path)
    assert message(path) == (
        f"{path}: a state dict must hold a weight of a linear, convolution or recurrent layer: "
        "norm.weight, one value a channel, as of a norm or a bias"
    )
    missing = tmp_path / "none.pt"
    assert (
        message(missing)
        == f"{missing}: a state dict must be a readable file, and No such file or directory; check the path"
    )


def test_inputs_are_drawn_or_asked_for(net, tmp_path):
    path = written(tmp_path / "net.pt", {"fc.weight": torch.ones(4, 4), "c.weight": torch.ones(4, 4, 3, 3)})
    with pytest.raises(InputError) as error:
        trace_of_state_dict(path)
    assert str(error.value) == (
        f"{path}: layer fc: inputs are needed, and a state dict has none; give act_density to draw some"
    )
    assert message(path) == (
        f"{path}: layer c: drawing the inputs of a convolution needs input_size (height, width); give it"
    )
    assert message(path, products=True) == (
        f"{path}: products need a model that can be run, and a state dict is none; give package.module:function "
        "or an ONNX file"
    )
    assert message(path, exclude=["fc"]).startswith(f"{path}: layer c: ")


def test_a_state_dict_is_pruned_and_saved(tmp_path):
    path = written(tmp_path / "net.safetensors", {"a.weight": torch.randn(8, 8), "norm.weight": torch.ones(3)})
    trace = import_model(path, draw={"act_density": 0.5}, prune="2:4")
    again = load_trace(save_trace(trace, tmp_path / "t.safetensors"))
    assert again.layers[0].pattern == Pattern("n:m", n=2, m=4, axis=1)
    assert again.sparsity == 0.5
    assert again.provenance["pruned"]["rule"] == "2:4"
    with pytest.raises(InputError) as error:
        import_model(path, draw={"act_density": 0.5}, exclude=["a"])
    assert str(error.value) == f"{path}: exclude is for prune, and there is none; leave it out"


def test_masked_weights_are_told_from_a_state_dict(tmp_path):
    def named(**arrays):
        path = tmp_path / "f.safetensors"
        save_file({name.replace("__", "."): np.ones(shape, np.float32) for name, shape in arrays.items()}, path)
        return is_state_dict(str(path))

    assert not named(fc__weight=(2, 3), fc__bias=(2,), fc__mask=(2, 3))
    assert not named(fc__weight=(2, 3), fc__inputs=(4, 3), norm__weight=(3,))
    assert not named(norm__weight=(3,))
    assert named(fc__weight=(2, 3), norm__weight=(3,))
    assert named(fc__weight_orig=(2, 3), fc__weight_mask=(2, 3))
    assert named(lstm__weight_ih_l0=(8, 3))
    assert named(word_embeddings__weight=(8, 3), fc__weight=(2, 3))
    assert not is_state_dict(str(tmp_path / "none.safetensors"))
    (tmp_path / "bad.safetensors").write_bytes(b"no")
    assert not is_state_dict(str(tmp_path / "bad.safetensors"))
