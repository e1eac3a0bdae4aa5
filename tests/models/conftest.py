"""What the helpers beside the tests assert is shown as what tests assert is: with the values met."""

import pytest

HELPERS = ("agreement", "mapping_engines", "patdnn_layers", "pointacc_layers", "tensorcore_layers")
pytest.register_assert_rewrite(*(f"tests.models.{name}" for name in HELPERS))
