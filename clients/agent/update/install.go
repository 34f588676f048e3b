package update

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// ErrNoOld means that there is no program to go back to.
var ErrNoOld = errors.New("there is no program from before an update")

// Program returns the path of the program that runs, with no symbolic link in it: a link to
// it stays one.
func Program() (string, error) {
	path, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this program: %w", err)
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return "", fmt.Errorf("find this program: %w", err)
	}
	return path, nil
}

// Old returns where the program before the one at path is kept.
func Old(path string) string { return path + ".old" }

// Replaceable returns an error unless the program at path can be replaced.
func Replaceable(path string) error {
	probe, err := os.CreateTemp(filepath.Dir(path), ".eclitunnel-*")
	if err != nil {
		return err
	}
	return errors.Join(probe.Close(), os.Remove(probe.Name()))
}

// Install puts the program at fetched, which is in the same directory, in place of the one
// at path, and keeps that as Old. Either may be running. After an error, path is the program
// that it was.
func Install(fetched, path string) error {
	if err := keep(path, Old(path)); err != nil {
		return fmt.Errorf("keep the program as %s: %w", Old(path), err)
	}
	if err := put(fetched, path); err != nil {
		return fmt.Errorf("replace %s: %w", path, err)
	}
	return syncDir(filepath.Dir(path))
}

// Swap puts Old in place of the program at path, and the other way round: a second one
// undoes the first. After an error, path is the program that it was. It fails with ErrNoOld
// where nothing is kept.
func Swap(path string) error {
	old := Old(path)
	if info, err := os.Lstat(old); errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
		return ErrNoOld
	}
	aside := path + ".swap"
	if err := keep(path, aside); err != nil {
		return fmt.Errorf("keep the program as %s: %w", aside, err)
	}
	if err := put(old, path); err != nil {
		return errors.Join(fmt.Errorf("replace %s: %w", path, err), os.Remove(aside))
	}
	if err := os.Rename(aside, old); err != nil {
		return fmt.Errorf("keep the program as %s: %w", old, err)
	}
	return syncDir(filepath.Dir(path))
}
