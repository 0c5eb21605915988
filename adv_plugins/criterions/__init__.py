"""The criterions; importing them registers them with fairseq."""

from adv_plugins.criterions import (  # noqa: F401
    asa,
    freelb,
    rapt,
    rat,
    rdrop,
    sentence_prediction,
    token_classification,
)
