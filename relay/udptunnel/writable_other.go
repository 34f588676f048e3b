//go:build !linux

package udptunnel

// writable never promises anything: what other systems call writable may be a
// few bytes short of a batch.
func writable(uintptr) bool { return false }
