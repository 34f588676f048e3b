package files

import (
	"fmt"
	"io"
)

// maxSize is the size of the largest file that is read, in bytes. The last state of an
// agent with 100,000 ports fits.
const maxSize = 64 << 20

// readAll reads r to its end. The name is for the error.
func readAll(name string, r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxSize+1))
	if err == nil && len(data) > maxSize {
		err = fmt.Errorf("%s is larger than %d MiB", name, maxSize>>20)
	}
	return data, err
}
