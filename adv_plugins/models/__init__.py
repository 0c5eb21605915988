"""The models; importing them registers them with fairseq."""

from adv_plugins.models import (  # noqa: F401
    asa_roberta,
    bert,
    bilstm,
    positions,
    text_cnn,
    text_han,
)
