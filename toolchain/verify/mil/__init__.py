"""An interpreter of ML Programs (Core ML's `.mlpackage`) on torch: what a package computes, as its text says.

`reading` takes a package apart, `decoding` expands compressed weights, `elementwise`, `layers`, `movement`
and `resizing` are the operators, `execution` runs them one after the other.
"""
