// Package store keeps what an agent has on disk besides its config: a certificate with
// its key ([Certificate]), and the latest of a stream of states ([State]). A State has
// the only goroutine; the caller of Start owns it.
package store
