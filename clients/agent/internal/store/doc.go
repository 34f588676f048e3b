// Package store keeps what an agent has on disk besides its config: a certificate with
// its key ([Certificate]), the latest of a stream of states ([State]), and a [Lock] that
// keeps a second process away. A State has the only goroutine; the caller of Start owns it.
package store
