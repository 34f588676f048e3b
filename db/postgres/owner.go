//go:build unix

package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
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

// inCluster calls f with the directory of a cluster, out of which no link leads. Where this process is root
// and the account may replace the directory itself, that is no link either.
func (d *dataDir) inCluster(name string, f func(cluster *os.Root) error) error {
	path := filepath.Join(d.root, name)
	var err error
	if d.account.drop && d.account.ownsDir {
		err = inRoot(os.OpenRoot, d.root, func(root *os.Root) error {
			if info, err := root.Lstat(name); err == nil && !info.IsDir() {
				return errors.New("it is no directory; if the data is elsewhere, let the data directory itself be the link")
			}
			return inRoot(root.OpenRoot, name, f)
		})
	} else {
		err = inRoot(os.OpenRoot, path, f)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func inRoot(open func(name string) (*os.Root, error), name string, f func(root *os.Root) error) error {
	root, err := open(name)
	if err != nil {
		return err
	}
	return errors.Join(f(root), root.Close())
}

// prepare brings what it must to a cluster that exists.
func (d *dataDir) prepare(ctx context.Context, logger *slog.Logger) error {
	return d.inCluster(clusterName, func(cluster *os.Root) error {
		return errors.Join(d.adopt(cluster), useUTC(cluster), d.restrictLogins(ctx, cluster, logger))
	})
}

// adopt gives the account what root left in the cluster, like a backup that root restored, or what a
// run as another user did.
func (d *dataDir) adopt(cluster *os.Root) error {
	if !d.account.drop {
		return nil
	}
	return fs.WalkDir(cluster.FS(), ".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := cluster.Lstat(path)
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
		return cluster.Lchown(path, int(d.account.uid), int(d.account.gid))
	})
}
