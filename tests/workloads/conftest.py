import pytest
import torch


@pytest.fixture
def one_thread():
    """Torch on one thread: its sums keep their order, and tests beside this one their cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
