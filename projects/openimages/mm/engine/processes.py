"""Processes that a launcher (torchrun, Slurm, MPI) started: joining them, and ending in time."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time

import torch
from mmengine.config import Config

from projects.openimages.common.errors import UserError
from projects.openimages.mm.engine.mmengine_internals import join_without_gpu


def start_processes(cfg: Config, launcher: str) -> None:
    """Become one of the processes of ``launcher``; ``'none'`` is a process on its own.

    Args:
        cfg: gets the launcher, and what MMEngine needs to know of it.
        launcher: as in MMDetection's tools: none, pytorch, slurm or mpi.
    """
    cfg.launcher = launcher
    if launcher == 'none':
        return
    end_with_the_launcher()
    if launcher == 'pytorch' and not torch.cuda.is_available():
        if 'RANK' not in os.environ:
            raise UserError('--launcher pytorch needs torchrun (tools/dist_train.sh) to start it')
        join_without_gpu(cfg)


def number_of_processes(launcher: str) -> int:
    """How many processes ``launcher`` has started, known before they have joined."""
    names = {'pytorch': 'WORLD_SIZE', 'slurm': 'SLURM_NTASKS', 'mpi': 'OMPI_COMM_WORLD_SIZE'}
    return int(os.environ.get(names.get(launcher, ''), 1))


def end_with_the_launcher(seconds: float = 1.0) -> None:
    """End this process when the one that started it has died, looked for every few ``seconds``.

    A launcher ends its processes when one of them fails, but not when it is killed itself: they
    would go on for hours, and keep their GPUs and part files. (``PR_SET_PDEATHSIG`` does not do:
    it also fires when only the launcher's thread ends that had started the process.)
    """
    launcher = os.getppid()

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(seconds)
        with contextlib.suppress(OSError):  # standard error may have gone with the launcher
            print('error: the launcher has died, so this process ends', file=sys.stderr)
        os._exit(1)

    threading.Thread(target=watch, name='launcher watch', daemon=True).start()
