import re
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from gossamer.workloads import load_trace
from gossamer.workloads.data import DATA
from gossamer.workloads.networks import NETWORKS
from gossamer.workloads.training import Recipe, load_recipe, recipe_names, train
from gossamer.workloads.training.recipe import build_recipe, override

from ..refusals import message

KNOWN = ", ".join(Recipe.__struct_fields__)


def test_the_bundled_recipes_are_these_and_each_is_named_as_its_file():
    lenet = (
        "asp-1-8 asp-2-4 block channel dense equal-blocks imp imp-balanced imp-balanced-column imp-layer imp-random "
        "imp-reinit imp-shuffled iterative mdgf-exp-1-8 mdgf-linear-1-8 oneshot sdgf-geometric-1-8 sdgf-stepwise-1-8 "
        "srste-1-8 srste-2-4 ste-2-4 swa swamp swamp-balanced swamp-plus vector l1 l2 mdgf-exp-true-1-8"
    )
    convnet = "dense imp kernel pattern pattern-admm slimming swamp"
    mlp = "imp imp-reinit imp-shuffled oneshot"
    nets = {"convnet": convnet, "lenet": lenet, "mlp": mlp}
    names = [f"{net}-digits-{what}" for net, many in nets.items() for what in many.split()]
    assert set(names) <= set(recipe_names())
    assert [load_recipe(name).name for name in recipe_names()] == list(recipe_names())


def test_every_method_and_strategy_has_a_bundled_recipe():
    recipes = [load_recipe(name) for name in recipe_names()]
    for field in ("method", "strategy", "control"):
        assert {getattr(recipe, field) for recipe in recipes} == set(get_args(get_type_hints(Recipe)[field]))


@pytest.mark.parametrize("name", recipe_names())
def test_a_bundled_recipe_trains_and_counts_its_steps(name):
    recipe = load_recipe(name)
    if recipe.network not in ("lenet-300-100", "mlp-100-100", "convnet-digits"):
        pytest.skip("too much for a test of this kind")
    few = {"epochs": 1, "samples": 1, "finetune_epochs": min(recipe.finetune_epochs, 1), "batch_size": 256}
    few |= {"swa_epochs": min(recipe.swa_epochs, 1), "dense_epochs": min(recipe.dense_epochs, 1)}
    if recipe.method in ("imp", "swamp", "iterative"):
        few |= {"sparsity": 0.36, "rewind_step": 2 if recipe.rewind_step else 0}
    seen = []
    run = train(override(recipe, **few), progress=lambda done, in_all: seen.append((done, in_all)))
    assert seen[-1] == (len(seen), len(seen))
    assert run.trace.provenance["recipe"]["name"] == name
    assert run.history[-1].training_flops > 0
    for parameter, mask in run.masks.items():
        assert not run.weights[parameter][~mask].any()


def test_the_balanced_recipes_differ_from_the_naive_one_in_their_balance_alone():
    naive = load_recipe("lenet-digits-imp")
    for name, scope in (("lenet-digits-imp-balanced", "pe"), ("lenet-digits-imp-balanced-column", "pe-column")):
        changed = override(naive, name=name, strategy="balanced", pe_count=64, scope=scope)
        assert load_recipe(name) == changed
    assert (naive.sparsity, naive.rate, naive.method) == (0.95, 0.2, "imp")


def test_every_field_is_documented():
    assert [key for key in Recipe.__struct_fields__ if f"``{key}``" not in Recipe.__doc__] == []


def test_changes_replace_fields_and_text_is_read_as_toml():
    recipe = load_recipe("lenet-digits-imp", sparsity="0.9", epochs=3, milestones="[1, 2]", prune_output="false")
    assert (recipe.sparsity, recipe.epochs, recipe.milestones, recipe.prune_output) == (0.9, 3, (1, 2), False)
    assert override(recipe, name="007", schedule="multistep").name == "007"


def test_a_file_states_only_what_differs_from_its_base(tmp_path):
    (tmp_path / "mine.toml").write_text('base = "lenet-digits-imp"\nseed = 7\n')
    (tmp_path / "other.toml").write_text('base = "mine.toml"\nepochs = 5\n')
    assert load_recipe(tmp_path / "other.toml") == load_recipe("lenet-digits-imp", name="other", seed=7, epochs=5)


def test_an_unknown_recipe_lists_the_bundled_ones():
    assert message(load_recipe, "lenet") == (
        "lenet: a recipe must be a bundled name or a TOML file, and this is neither; "
        f"bundled: {', '.join(recipe_names())}"
    )


def test_an_unknown_key_lists_the_known_ones(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("sparsty = 0.9\n")
    assert message(load_recipe, path) == f"{path}: unknown key 'sparsty' (did you mean sparsity?); known: {KNOWN}"
    assert (
        message(load_recipe, "lenet-digits-imp", pes=3) == f"recipe lenet-digits-imp: unknown key 'pes'; known: {KNOWN}"
    )


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("epochs = 0", "epochs must be a whole number of at least 1, not 0"),
        ("epochs = true", "epochs must be a whole number of at least 1, not True"),
        ("pe_count = 3.5", "pe_count must be a whole number of at least 1, not 3.5"),
        ("sparsity = 1.0", "sparsity must be a number of at least 0 and below 1, not 1.0"),
        ("weight_decay = nan", "weight_decay must be a number of at least 0, not nan"),
        ('learning_rate = "fast"', "learning_rate must be a number above 0, not 'fast'"),
        ('optimizer = "lion"', "optimizer must be one of sgd, adam, not 'lion'"),
        ('scope = "row"', "scope must be one of pe, pe-column, not 'row'"),
        ("milestones = [0]", "milestones must be a list, each a whole number of at least 1, not [0]"),
        ("name = 3", "name must be text, not 3"),
        ('name = "a/b"', "name must be the stem of a file, not 'a/b'"),
        ('network = "vgg"', f"unknown network 'vgg'; known: {', '.join(NETWORKS)}"),
        ('data = "mnist2d"', f"unknown data 'mnist2d'; known: {', '.join(DATA)}"),
        ('strategy = "balanced"', "strategy balanced needs pe_count, and has None"),
        ("pe_count = 64", "strategy magnitude-global takes no pe_count, and has 64"),
        ("sparsity = 0.5", "sparsity must be 0 for method dense, not 0.5"),
        ('method = "imp"', "sparsity must be above 0 for method imp, not 0.0"),
        ('method = "asp"', "method asp needs n, and has None"),
        ("n = 2", "method dense takes no n, and has 2"),
        ('method = "ste"\nn = 4\nm = 4', "n must be below m = 4, not 4"),
        ('method = "ste"\nn = 2\nm = 4\nsparsity = 0.5', "sparsity must be 0 for method ste, not 0.5"),
        ('strategy = "block"', "strategy block needs block, and has None"),
        ("block = [4]", "block must be a list, each a whole number of at least 1, not [4]"),
        ('method = "slimming"\nsparsity = 0.5', "scale_l1 must be above 0 for method slimming, not 0.0"),
        ("swa_epochs = 31", "swa_epochs must be at most epochs = 30, not 31"),
        ("particles = 4", "particles must be 1 but for method swamp, not 4 for dense"),
        ('control = "shuffled"', "control must be none but for method imp, not 'shuffled' for dense"),
        (
            'method = "imp"\nsparsity = 0.5\nstrategy = "channel"\ncontrol = "random"',
            "control random must be of strategy magnitude-global or magnitude-layer, not channel",
        ),
        ("base = 3", "base must be the name of a recipe, not 3"),
        ('base = "mine.toml"', "base must lead to a recipe without one, and 'mine.toml' leads back; break the circle"),
        (
            'base = "nothing"',
            "base nothing: a recipe must be a bundled name or a TOML file, and this is neither; "
            f"bundled: {', '.join(recipe_names())}",
        ),
    ],
)
def test_a_broken_rule_names_the_file_the_value_and_what_would_do(tmp_path, text, rule):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    assert message(load_recipe, path) == f"{path}: {rule}"


def test_a_recipe_made_in_python_keeps_the_same_rules():
    assert message(Recipe, name="x", epochs=0) == "epochs must be a whole number of at least 1, not 0"


def test_a_file_that_is_no_toml_is_named(tmp_path):
    path = tmp_path / "mine.toml"
    for content, rule in ((b"epochs = = 3", "TOML: .*; correct the file"), (b"\xff", "UTF-8 text; save it as such")):
        path.write_bytes(content)
        assert re.fullmatch(rf"{re.escape(str(path))}: a recipe must be {rule}", message(load_recipe, path))


@pytest.mark.parametrize(
    ("name", "kind"),
    [("lenet-digits-dense", "dense"), ("lenet-digits-imp", "unstructured"), ("lenet-digits-imp-balanced", "balanced")],
)
def test_a_bundled_trace_was_made_by_the_recipe_of_its_name_as_it_stands(name, kind):
    trace = load_trace(name)
    assert build_recipe(trace.provenance["recipe"], name) == load_recipe(name)
    assert {layer.pattern.kind for layer in trace.layers} == {kind}
    assert trace.sparsity == pytest.approx(load_recipe(name).sparsity)
    assert trace.provenance["accuracy"] > 0.95
    assert [layer.inputs.shape[0] for layer in trace.layers] == [8, 8, 8]


def test_the_page_on_training_has_every_bundled_recipe_beside_its_paper():
    page = Path(__file__).resolve().parents[3] / "docs" / "how-to" / "train.md"
    table = page.read_text("utf-8").partition("## The bundled recipes")[2].partition("\n## ")[0]
    assert sorted(re.findall(r"`([\w-]+-(?:digits|cad)-[\w-]+)`", table)) == sorted(recipe_names())
