package store

import (
	"fmt"
	"os"
	"runtime"

	"github.com/eclitunnel/eclitunnel/internal/files"
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
	return files.ReadFrom(path, f)
}
