//go:build unix

package files

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// setAccess makes f private. Where root replaces a file that is not its own, f gets that
// file's owner and group. The group of root's file keeps reading it: a service reads it
// that way. Another owner reads it without, and a group beside it would expose it.
func setAccess(f *os.File, old fs.FileInfo) error {
	mode := fs.FileMode(0o600)
	if old != nil && os.Geteuid() == 0 {
		stat, ok := old.Sys().(*syscall.Stat_t)
		if ok && (stat.Uid != 0 || stat.Gid != 0) {
			if err := f.Chown(int(stat.Uid), int(stat.Gid)); err != nil {
				return err
			}
			if stat.Uid == 0 {
				mode |= old.Mode().Perm() & 0o040
			}
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
