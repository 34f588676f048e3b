//go:build unix

package postgres

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"regexp"
)

// timezoneLine is a setting of a time zone in a configuration file of Postgres.
var timezoneLine = regexp.MustCompile(`(?im)^[ \t]*(log_timezone|timezone)[ \t]*=?[ \t]*('[^'\n]*'|[^\s#]+)`)

// useUTC makes a cluster independent of the machine's time zone files, of which initdb notes the
// name of one: Postgres does not start without it. GMT is the name that Postgres itself knows.
func useUTC(cluster *os.Root) error {
	for _, name := range []string{"postgresql.conf", "postgresql.auto.conf"} {
		info, err := cluster.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
			continue // The operator may have put a link here.
		}
		if err != nil {
			return err
		}
		content, err := cluster.ReadFile(name)
		if err != nil {
			return err
		}
		mended := timezoneLine.ReplaceAll(content, []byte("$1 = 'GMT'"))
		if bytes.Equal(mended, content) {
			continue
		}
		if err := replaceFile(cluster, name, mended, info.Mode().Perm(), ownerOf(info)); err != nil {
			return err
		}
	}
	return nil
}

// replaceFile makes or replaces a file of the cluster in one step.
func replaceFile(cluster *os.Root, name string, content []byte, mode fs.FileMode, owner account) error {
	fresh := name + ".new"
	if err := cluster.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := cluster.OpenFile(fresh, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if err = errors.Join(err, file.Chmod(mode)); err == nil && os.Geteuid() == 0 {
		err = file.Chown(int(owner.uid), int(owner.gid))
	}
	if err = errors.Join(err, file.Sync(), file.Close()); err == nil {
		err = cluster.Rename(fresh, name)
	}
	if err != nil {
		return errors.Join(err, cluster.Remove(fresh))
	}
	dir, err := cluster.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
