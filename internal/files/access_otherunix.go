//go:build unix && !linux

package files

import "os"

// lacksModes reports whether the file system of f has no modes of its own.
func lacksModes(*os.File) bool { return false }
