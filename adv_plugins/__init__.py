"""Perturbation-based training for fairseq: ``fairseq-train --user-dir adv_plugins ...``.

Importing this package registers its criterions, models and tasks with fairseq; that, the removal of
fairseq's dead weights, a flag that its RoBERTa lacks, a clipping that keeps ASA's two players apart,
checks before the first update and errors of one line are the only side effects.
"""

import fairseq_compat

fairseq_compat.check_versions()
fairseq_compat.install()

from adv_plugins import (  # noqa: E402
    checkpointing,
    clipping,
    criterions,  # noqa: F401
    dead_weights,
    errors,
    models,  # noqa: F401
    tasks,  # noqa: F401
    trainer_checks,
    wordpiece,  # noqa: F401
)

dead_weights.remove()
checkpointing.add_flag()
clipping.clip_apart()
trainer_checks.add_checks()
errors.show_in_one_line()

__version__ = "0.1.0"
