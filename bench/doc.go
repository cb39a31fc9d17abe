// Package bench measures package signin beside its peers. All of it is in
// tests: run "make bench" at the root of the repository, which prints one
// table. The machine may be noisy, so every figure is a ratio between things
// that were measured in turns, in one run, as the median of several passes.
package bench
