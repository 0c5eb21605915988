"""Changing what a method of fairseq's does, once, however often the package is imported."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any


def wrap_method(owner: Any, name: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Put ``wrap(method)`` in the place of ``owner``'s method, unless the same ``wrap`` did so before.

    ``__wrapped__`` of what is there then is what was there before.
    """
    original = method = getattr(owner, name)
    while method is not None:
        if getattr(method, "wrapped_by", None) == wrap.__qualname__:
            return
        method = getattr(method, "__wrapped__", None)
    wrapper = functools.wraps(original)(wrap(original))
    wrapper.wrapped_by = wrap.__qualname__  # type: ignore[attr-defined]
    setattr(owner, name, wrapper)
