"""OrionFS: a user-space storage stack that you mount.

This file imports nothing on purpose: ``orionctl`` has to start in under 100 ms.
"""

__version__ = "0.1.0"
