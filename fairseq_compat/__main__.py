"""``python -m fairseq_compat`` prints the folder to pass as ``--user-dir``."""

from fairseq_compat import user_dir

print(user_dir())
