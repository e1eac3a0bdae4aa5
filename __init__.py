"""Gossamer: a cycle-level simulator for sparse neural-network accelerators.

A pruned model goes in; exact cycles, latency, energy and the reasons for them come out.
"""

__version__ = "0.1.0"
