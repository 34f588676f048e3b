//go:build unix

package postgres

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
)

// timezoneLine is a setting of a time zone in a configuration file of Postgres.
var timezoneLine = regexp.MustCompile(`(?im)^[ \t]*(log_timezone|timezone)[ \t]*=?[ \t]*('[^'\n]*'|[^\s#]+)`)

// useUTC makes a cluster independent of the machine's time zone files, of which initdb notes the
// name of one: Postgres does not start without it. GMT is the name that Postgres itself knows.
func useUTC(cluster string) error {
	for _, name := range []string{"postgresql.conf", "postgresql.auto.conf"} {
		path := filepath.Join(cluster, name)
		info, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
			continue // The operator may have put a link here.
		}
		if err != nil {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		mended := timezoneLine.ReplaceAll(content, []byte("$1 = 'GMT'"))
		if bytes.Equal(mended, content) {
			continue
		}
		if err := replaceFile(path, mended, info.Mode().Perm(), ownerOf(info)); err != nil {
			return err
		}
	}
	return nil
}

// replaceFile makes or replaces a file of the cluster in one step.
func replaceFile(path string, content []byte, mode fs.FileMode, owner account) error {
	file, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if err = errors.Join(err, file.Chmod(mode)); err == nil && os.Geteuid() == 0 {
		err = file.Chown(int(owner.uid), int(owner.gid))
	}
	if err = errors.Join(err, file.Sync(), file.Close()); err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(file.Name()))
	}
	return syncDir(filepath.Dir(path))
}
