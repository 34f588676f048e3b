//go:build !windows

package main

import (
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// fileOwner returns who owns a file, or nil if that cannot be known.
func fileOwner(path string) *user.User {
	info, err := os.Stat(path)
	if err != nil {
		return nil
	}
	status, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	owner, err := user.LookupId(strconv.FormatUint(uint64(status.Uid), 10))
	if err != nil {
		return nil
	}
	return owner
}
