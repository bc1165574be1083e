"""A loss, a data set and a network for labeldrop_bench."""
