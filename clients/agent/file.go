package agent

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
)

// readPrivate reads a file that holds secrets. It refuses one that other users
// can read or write, since what leaked by that is in use already (not on
// Windows, where a profile's files are private by their access lists). Its error
// is fs.ErrNotExist where there is no file.
func readPrivate(path string) ([]byte, error) {
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

// writePrivate writes a file that only this user can read. It replaces the file
// in one step, so that a crash leaves either the old content or the new.
func writePrivate(path string, data []byte) error {
	temp, err := createBeside(path)
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(temp.Name()) }() // Already renamed, where all went well.
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

// removePrivate removes a file for good; that there is none is no error.
func removePrivate(path string) error {
	err := os.Remove(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// createBeside makes a private temporary file in the directory of path, and
// that directory where it is missing.
func createBeside(path string) (*os.File, error) {
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
