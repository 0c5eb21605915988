"""The models; importing them registers them with fairseq."""

from adv_plugins.models import asa_roberta, bert, positions  # noqa: F401
