"""Which of torch's operators run, for tests that nothing waits for a GPU, on machines without."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

# A number asked for, and a selection whose size depends on the values.
WAITING = {'_local_scalar_dense', 'nonzero', 'masked_select', 'index by mask'}


class Operators(TorchDispatchMode):
    """Notes down which of torch's operators run."""

    def __init__(self):
        super().__init__()
        self.names = []

    @property
    def waiting(self) -> set[str]:
        """Those that would make the host wait for a GPU."""
        return WAITING.intersection(self.names)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        by_mask = name.startswith('index') and isinstance(args[1], list | tuple) and any(
            one is not None and one.dtype == torch.bool for one in args[1])
        self.names.append('index by mask' if by_mask else name)
        return func(*args, **(kwargs or {}))
