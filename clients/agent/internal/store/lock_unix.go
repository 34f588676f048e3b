//go:build unix

package store

import (
	"os"
	"syscall"
)

// noFollow refuses a symbolic link in place of the file: root would write where the
// owner of the directory likes.
const noFollow = syscall.O_NOFOLLOW

// giveToOwner gives a file that root has made to the owner of its directory: a service
// must be able to lock it after somebody has run the program with sudo. Where that is
// not permitted, the service goes without the lock.
func giveToOwner(path, dir string) {
	info, err := os.Stat(dir)
	if err != nil || os.Geteuid() != 0 {
		return
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		_ = os.Lchown(path, int(stat.Uid), int(stat.Gid))
	}
}
