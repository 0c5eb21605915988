"""Perturbation-based training for fairseq: ``fairseq-train --user-dir adv_plugins ...``.

Importing this package registers its criterions, models and tasks with fairseq; that, the removal of
fairseq's dead weights, a flag that its RoBERTa lacks and a clipping that keeps ASA's two players apart
are the only side effects.
"""

import fairseq_compat

fairseq_compat.check_versions()
fairseq_compat.install()

from adv_plugins import (  # noqa: E402
    checkpointing,
    clipping,
    criterions,  # noqa: F401
    dead_weights,
    models,  # noqa: F401
    tasks,  # noqa: F401
    updates,
    wordpiece,  # noqa: F401
)

dead_weights.remove()
checkpointing.add_flag()
updates.announce()
clipping.clip_apart()

__version__ = "0.1.0"
