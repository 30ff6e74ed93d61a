"""Which of torch's operators run, for tests that nothing waits for a GPU, on machines without."""

from collections import Counter

import torch
from torch.utils._python_dispatch import TorchDispatchMode

# A number asked for, a selection whose size depends on the values, and a list turned into a tensor.
WAITING = {'_local_scalar_dense', 'nonzero', 'masked_select', 'index by mask', 'list sent'}


class Operators(TorchDispatchMode):
    """Notes down which of torch's operators run."""

    def __init__(self):
        super().__init__()
        self.names = []

    @property
    def waiting(self) -> Counter:
        """Those that would make the host wait for a GPU, and how often each ran."""
        return Counter(name for name in self.names if name in WAITING)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name.startswith('index') and isinstance(args[1], list | tuple) and any(
                one is not None and one.dtype == torch.bool for one in args[1]):
            name = 'index by mask'
        if name == 'lift_fresh' and args[0].dim():
            name = 'list sent'
        self.names.append(name)
        return func(*args, **(kwargs or {}))
