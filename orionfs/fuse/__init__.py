"""The mounted tree: what is in it, what every file operation does, and the one module that speaks to libfuse."""
