"""The project's own benchmark: OrionFS beside its peers on one machine in one run (``tools/bench``).

One file per suite (what is measured and what must be reached, as data), one per kind of stack, one per step.
"""
