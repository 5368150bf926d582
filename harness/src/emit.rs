//! Prints a kernel at one of its stages, from the tile program down to the cubin.
