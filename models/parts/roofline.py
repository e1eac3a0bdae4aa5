"""Where a layer stands under a chip's roofline: what arithmetic and memory would allow, and what was reached."""

from __future__ import annotations


def roofline(macs: int, moved_bytes: int, seconds: float, peak: float, bandwidth: float) -> dict[str, float]:
    """Return a result's roofline: MACs a byte, of the layer and at the ridge, and MACs a second, bound and achieved.

    ``peak``: MACs that the chip does in a second; ``bandwidth``: bytes that its memory reaches in one.
    Source: Williams, Waterman and Patterson, "Roofline", CACM 52(4), 2009.
    """
    return {
        "macs_per_byte": macs / moved_bytes,
        "ridge_macs_per_byte": peak / bandwidth,
        "bound_macs_per_s": min(peak, macs / moved_bytes * bandwidth),
        "achieved_macs_per_s": macs / seconds,
    }
