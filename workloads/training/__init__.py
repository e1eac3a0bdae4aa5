"""Training and pruning of networks: a recipe goes in; weights, masks and a trace come out. Needs the extra `train`."""

from .checkpoint import export_checkpoint, is_checkpoint, load_checkpoint
from .recipe import Recipe, load_recipe, recipe_names
from .run import Run
from .trained import Level
from .trainer import prune, train

__all__ = [
    "Level",
    "Recipe",
    "Run",
    "export_checkpoint",
    "is_checkpoint",
    "load_checkpoint",
    "load_recipe",
    "prune",
    "recipe_names",
    "train",
]
