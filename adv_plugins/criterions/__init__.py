"""The criterions; importing them registers them with fairseq."""

from adv_plugins.criterions import (  # noqa: F401
    asa,
    awp,
    fgm,
    free_at,
    freelb,
    neftune,
    pgd,
    r3f,
    rapt,
    rat,
    rdrop,
    sentence_prediction,
    smart,
    token_classification,
    yopo,
)
