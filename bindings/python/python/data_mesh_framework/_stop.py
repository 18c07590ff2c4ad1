"""What stops the work of a thread or task from elsewhere."""

from __future__ import annotations

import contextvars

from . import _core

STOP: contextvars.ContextVar[_core.Stop | None] = contextvars.ContextVar("data_mesh_framework_stop", default=None)
"""What stops the work of this context from another thread."""
