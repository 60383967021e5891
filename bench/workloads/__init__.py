"""The loads, one small file each, in the order of the results."""
