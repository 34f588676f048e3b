package files

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
)

// exposure says who else can read or change a file, and which command would keep them
// out. The zero value: nobody.
type exposure struct {
	who  string // Such as "others can read or change".
	mode string // The file's access, for people: "mode 0644".
	fix  string // "" if nothing that this program knows of would help.
}

// ReadSecret reads a text that holds secrets. It refuses a file that others on this
// machine can read or change if a command would keep them out, which the error names: a
// secret that leaked that way is compromised already. Where no command would help, as on
// a file system without modes or a read-only one, the file is read; see [Exposure]. A
// file's group may read it if that is root's, or is how this process can; so may another
// group that root has permitted to read a file of its own. The error is fs.ErrNotExist
// where there is no file.
func ReadSecret(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // It was only read.
	e, err := examine(f)
	if err != nil {
		return nil, fmt.Errorf("find out who can read %s: %w", path, err)
	}
	if e.fix != "" {
		return nil, fmt.Errorf("%s the secrets in %s (%s); run: %s", e.who, path, e.mode, e.fix)
	}
	return ReadFrom(path, f)
}

// Exposure returns an error that says who else can read or change a file that ReadSecret
// reads all the same, for a warning. It returns nil if nobody can.
func Exposure(path string) error {
	// To open a pipe would take it from its reader.
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil // Reading it says so.
	}
	defer func() { _ = f.Close() }() // It was only read.
	e, err := examine(f)
	if err != nil || e.who == "" || e.fix != "" {
		return nil
	}
	return errors.New(e.who + " the secrets in " + path + " (" + e.mode + "), and its file system cannot keep them out; they belong in another place")
}

// Quote returns a path, or another argument, as a word of a command for the shell.
func Quote(arg string) string {
	switch {
	case runtime.GOOS == "windows" && strings.ContainsAny(arg, " \t&()^;,=%'`"):
		return `"` + arg + `"`
	case runtime.GOOS == "windows" || arg != "" && !strings.ContainsAny(arg, " \t\n'\"$&;()<>|*?[]#~`\\"):
		return arg
	default:
		return "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
	}
}
