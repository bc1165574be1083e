"""Fused partial-label segmentation losses, label dropout, and the benchmark that ranks them."""
