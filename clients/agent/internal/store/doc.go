// Package store keeps an agent's files: tokens, keys and the last desired state,
// all readable by one user only, each replaced in one step.
//
// Content goes in and out as bytes ([Read], [Write]), as a certificate with its
// key ([Certificate]), or as the latest of a stream of states ([State]). A State
// has the only goroutine; the caller of Start owns it.
package store
