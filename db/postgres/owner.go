//go:build unix

package postgres

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// createFlags are for files in a directory that another user may write to: root must not follow a
// link that waits there under the name.
const createFlags = os.O_RDWR | os.O_CREATE | syscall.O_NOFOLLOW

// openOwn opens or makes a private file of the data directory, and gives it to the account where that
// has the directory: the panel may run as the account next time.
func (d *dataDir) openOwn(name string, flags int) (*os.File, error) {
	file, err := os.OpenFile(filepath.Join(d.root, name), createFlags|flags, 0o600)
	if err != nil {
		return nil, err
	}
	if d.account.drop && d.account.ownsDir {
		if err := file.Chown(int(d.account.uid), int(d.account.gid)); err != nil {
			return nil, errors.Join(err, file.Close())
		}
	}
	return file, nil
}

// checkOwned finds files that a run as another user left behind, which this one cannot use.
func (d *dataDir) checkOwned() error {
	if os.Geteuid() == 0 {
		return nil
	}
	for _, name := range []string{lockName, logName, socketDirName, newClusterName, clusterName} {
		err := filepath.WalkDir(filepath.Join(d.root, name), func(path string, entry fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // A running server makes and removes files.
			}
			if entry == nil {
				return err
			}
			info, infoErr := entry.Info()
			if errors.Is(infoErr, fs.ErrNotExist) {
				return nil
			}
			if infoErr != nil {
				return infoErr
			}
			if owner := ownerOf(info); owner.uid != d.account.uid {
				return fmt.Errorf("%s belongs to the user %s, and the panel runs as %s: run `sudo chown -R %s: %s`",
					path, owner.name, d.account.name, d.account.name, d.root)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// adopt gives the account what root left in the cluster, like a backup that root restored, or what a
// run as another user did.
func (d *dataDir) adopt() error {
	if !d.account.drop {
		return nil
	}
	// Through a root, so that no link leads out of the cluster.
	root, err := os.OpenRoot(d.cluster())
	if err != nil {
		return err
	}
	err = fs.WalkDir(root.FS(), ".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := root.Lstat(path)
		if err != nil {
			return err
		}
		stat := info.Sys().(*syscall.Stat_t)
		if stat.Uid == d.account.uid {
			return nil
		}
		// Postgres makes no second name for a file: such a one may be from elsewhere.
		if info.Mode().IsRegular() && stat.Nlink > 1 {
			return fmt.Errorf("%s has several names and belongs to the user %s", filepath.Join(d.cluster(), path), userName(stat.Uid))
		}
		return root.Lchown(path, int(d.account.uid), int(d.account.gid))
	})
	return errors.Join(err, root.Close())
}
