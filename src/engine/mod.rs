//! Dense arithmetic, elementary kernels, the sums: the only room that knows caches, lanes and threads.
