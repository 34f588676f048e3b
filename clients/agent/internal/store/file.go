package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
)

// Read reads a file that holds secrets. It refuses a file that other users can
// read or write: a secret that leaked that way is compromised already. Windows is
// exempt, where access lists protect a profile's files. The error is
// fs.ErrNotExist where there is no file.
func Read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // It was only read.
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); runtime.GOOS != "windows" && mode&0o077 != 0 {
		return nil, fmt.Errorf("others can read the secrets in %s (mode %#o); run: chmod 600 %s", path, mode, path)
	}
	return io.ReadAll(f)
}

// Write writes a file that only this user can read, and its directory where that
// is missing. It replaces the file in one step: after a crash the file has either
// the old content or the new.
func Write(path string, data []byte) error {
	temp, err := createTemp(path)
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(temp.Name()) }() // After success it has been renamed.
	_, err = temp.Write(data)
	if err == nil {
		err = temp.Sync()
	}
	if closeErr := temp.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(temp.Name(), path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	return err
}

// CheckWritable returns an error unless Write can write a file at path. It leaves
// no file behind, but the directory that Write would make.
func CheckWritable(path string) error {
	temp, err := createTemp(path)
	if err != nil {
		return err
	}
	return errors.Join(temp.Close(), os.Remove(temp.Name()))
}

// Remove removes a file durably. A file that does not exist is no error.
func Remove(path string) error {
	err := os.Remove(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// createTemp makes a private temporary file in the directory of path, and that
// directory where it is missing.
func createTemp(path string) (*os.File, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return os.CreateTemp(dir, ".eclitunnel-*")
}

// syncDir makes a rename durable. Windows does so by itself and refuses to sync
// a directory.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
