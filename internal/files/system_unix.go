//go:build unix

package files

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// setAccess makes f private. Where it replaces another user's file, which root alone can
// do, it gets the owner of that file, and its group keeps what it could read.
func setAccess(f *os.File, old fs.FileInfo) error {
	mode := fs.FileMode(0o600)
	if old != nil && os.Geteuid() == 0 {
		stat, ok := old.Sys().(*syscall.Stat_t)
		if ok && (stat.Uid != 0 || stat.Gid != 0) {
			if err := f.Chown(int(stat.Uid), int(stat.Gid)); err != nil {
				return err
			}
			mode |= old.Mode().Perm() & 0o040
		}
	}
	_ = f.Chmod(mode) // Not every file system can; see Exposure.
	return nil
}

// syncDir makes a rename durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		err = nil // Some file systems of networks and of user programs.
	}
	return errors.Join(err, d.Close())
}
