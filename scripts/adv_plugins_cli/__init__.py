"""The commands around the plug-ins: ``adv-plugins COMMAND``.

Beside ``adv_plugins`` as ``fairseq_cli`` is beside ``fairseq``: importing the plug-ins imports fairseq
and torch, which takes seconds, and ``--help`` must not.
"""
