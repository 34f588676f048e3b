package files

import (
	"fmt"
	"io"
	"os"
)

// maxSize is the size of the largest file that is read, in bytes. The last state of an
// agent with 100,000 ports fits.
const maxSize = 64 << 20

// Read reads a text, such as a certificate. The error is fs.ErrNotExist where there is no
// file.
func Read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // It was only read.
	return ReadFrom(path, f)
}

// ReadData reads a file of this program's own, byte for byte. The error is fs.ErrNotExist
// where there is no file.
func ReadData(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // It was only read.
	return readAll(path, f)
}

// ReadFrom reads a text to its end. The name is for errors.
func ReadFrom(name string, r io.Reader) ([]byte, error) {
	data, err := readAll(name, r)
	if err != nil {
		return nil, err
	}
	return Text(name, data)
}

func readAll(name string, r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxSize+1))
	if err == nil && len(data) > maxSize {
		err = fmt.Errorf("%s is larger than %d MiB", name, maxSize>>20)
	}
	return data, err
}
