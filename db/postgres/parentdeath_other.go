//go:build unix && !linux

package postgres

import "syscall"

// setParentDeathSignal does nothing: the child outlives this process, and the next start ends it.
func setParentDeathSignal(*syscall.SysProcAttr, syscall.Signal) {}
