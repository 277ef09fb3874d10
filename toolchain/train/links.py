"""What processes that train one network together say to each other: messages, and sums of tensors.

Messages go over gloo, which waits without computing for as long as the first process plans and measures, and
notices at once when a process is gone. Tensors go over NCCL where every process has a GPU of its own.
"""

from __future__ import annotations

import pickle
import time
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from toolchain.errors import CompressError, DeviceError, InputError, UnsupportedError
from toolchain.processes import neighbours, processes

_PATIENCE: Final = timedelta(days=30)
"""Of a process that waits for messages: planning and measuring take their time."""
_HEARING: Final = 5.0
"""Seconds that an ended process may take to have said why."""
_ANSWER: Final = 5.0
"""Seconds in which the first process ends for another's failure."""
_FAILED: Final = "edgefit/failed"
_ENDED: Final = "edgefit/ended"
_KINDS: Final[dict[int, type[CompressError]]] = {2: InputError, 3: UnsupportedError}


class Gone(Exception):
    """Another process ended in the middle of what it did together with this one."""


class Links:
    """This process's connection with the others; all of them make one at the same time.

    Raises:
        InputError: the processes did not find each other.
    """

    def __init__(self) -> None:
        try:
            self._store, self.rank, self.size = next(iter(rendezvous("env://")))
            dist.init_process_group(
                "gloo", store=self._store, rank=self.rank, world_size=self.size, timeout=_PATIENCE
            )
        except (RuntimeError, ValueError) as error:
            raise InputError(
                f"the {processes()} processes did not find each other: {str(error).splitlines()[0]}",
                hint="start them with torchrun",
            ) from error
        own = torch.cuda.is_available() and torch.cuda.device_count() >= neighbours()
        self._fast = dist.new_group(backend="nccl") if own else None

    def tell(self, what: str, content: Any = None) -> None:
        """Send a message from the first process to all others."""
        data = torch.frombuffer(bytearray(pickle.dumps((what, content))), dtype=torch.uint8)
        self._whole(dist.broadcast, torch.tensor([len(data)]))
        self._whole(dist.broadcast, data)

    def hear(self) -> tuple[str, Any]:
        """Wait for the next message of the first process."""
        length = torch.zeros(1, dtype=torch.int64)
        self._whole(dist.broadcast, length)
        data = torch.empty(int(length), dtype=torch.uint8)
        self._whole(dist.broadcast, data)
        what, content = pickle.loads(data.numpy().tobytes())
        return what, content

    def share(self, tensor: Tensor) -> Tensor:
        """The first process's tensor, on every process; the others give one of its shape."""
        return self._on(tensor, dist.broadcast)

    def total(self, tensor: Tensor) -> Tensor:
        """The sum of all processes' tensors, on every process; differentiable in none of them."""
        return self._on(tensor, dist.all_reduce)

    def meet(self) -> None:
        """Wait until all processes are here."""
        self._whole(dist.all_reduce, torch.zeros(1))

    def end(self, code: int) -> None:
        """Leave the others; `code` is what the first process ends with."""
        with suppress(RuntimeError):
            if self.rank == 0:
                self._store.set(_ENDED, str(code))
        dist.destroy_process_group()

    def ended(self, seconds: float = _HEARING) -> int | None:
        """The exit code of the first process, once it has ended; None if it has not within some seconds."""
        found = self._said(_ENDED, seconds)
        return None if found is None else int(found)

    def fail(self, error: BaseException) -> int | None:
        """Tell the first process why this one cannot go on; the exit code with which that ended for it."""
        known = isinstance(error, CompressError)
        code = error.exit_code if isinstance(error, CompressError) else 0
        text = error.message if isinstance(error, CompressError) else f"{type(error).__name__}: {error}"
        hint = error.hint if isinstance(error, CompressError) else ""
        with suppress(RuntimeError):
            self._store.set(_FAILED, pickle.dumps((self.rank, known, code, text, hint)))
        dist.destroy_process_group()
        return self.ended(_ANSWER)

    def failure(self, seconds: float = _HEARING) -> Exception | None:
        """What another process said why it cannot go on; None if it says nothing within some seconds."""
        found = self._said(_FAILED, seconds)
        if found is None:
            return None
        rank, known, code, text, hint = pickle.loads(found)
        message = f"process {rank} of {self.size}: {text}"
        return _KINDS.get(code, DeviceError)(message, hint=hint) if known else RuntimeError(message)

    def _on(self, tensor: Tensor, operation: Any) -> Tensor:
        if self._fast is None:
            there = tensor.detach().cpu().contiguous()
            self._whole(operation, there)
            return there.to(tensor.device)
        there = tensor.detach().contiguous()
        self._whole(operation, there, group=self._fast)
        return there

    def _whole(self, operation: Any, tensor: Tensor, **more: Any) -> None:
        """A collective operation, in place."""
        try:
            operation(tensor, **({"src": 0} if operation is dist.broadcast else {}), **more)
        except RuntimeError as error:
            raise Gone(str(error)) from error

    def _said(self, key: str, seconds: float) -> bytes | None:
        patience = time.monotonic() + seconds
        with suppress(RuntimeError):
            while True:
                if self._store.check([key]):
                    found: bytes = self._store.get(key)
                    return found
                if time.monotonic() > patience:
                    break
                time.sleep(0.05)
        return None
