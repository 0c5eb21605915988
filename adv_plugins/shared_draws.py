"""What a method draws once a batch: the same on all workers, and in a resumed run."""

from typing import Optional

import torch


class SharedDraws:
    """A random stream of its own.

    It depends on the seed that fairseq sets in every update (the same on all workers) and on the number
    of the batch in that update, not on what a worker has drawn otherwise. So workers agree and a resumed
    run draws what an uninterrupted one does. A batch tried again in the same update (fp16 overflow,
    --amp) draws anew.
    """

    def __init__(self) -> None:
        self._seed: Optional[int] = None
        self._draws = 0

    def up_to(self, most: int) -> int:
        """A whole number from 1 to ``most``; called once a batch."""
        seed = torch.initial_seed()
        self._draws = self._draws + 1 if seed == self._seed else 0
        self._seed = seed
        generator = torch.Generator().manual_seed((seed * 1000003 + self._draws) % 2**63)
        return int(torch.randint(1, most + 1, (), generator=generator))
