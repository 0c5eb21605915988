"""Perturbation-based training for fairseq: ``fairseq-train --user-dir adv_plugins ...``.

Importing this package registers its criterions, models and tasks with fairseq; that, the removal of
fairseq's dead weights, a flag that its RoBERTa lacks, and trainings that survive being killed and keep
their validations in a file are the only side effects.
"""

import fairseq_compat
from fairseq_compat import validations

fairseq_compat.check_versions()
fairseq_compat.install()

from adv_plugins import (  # noqa: E402
    checkpointing,
    criterions,  # noqa: F401
    dead_weights,
    models,  # noqa: F401
    not_finite,
    resuming,
    tasks,  # noqa: F401
    wordpiece,  # noqa: F401
)

dead_weights.remove()
checkpointing.add_flag()
not_finite.name()
resuming.wrap()
validations.record()

__version__ = "0.1.0"
