package update

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// keep copies the program at path to another name. Windows does not let a program that runs
// be replaced or removed, only renamed: what has the name is renamed away if it runs.
func keep(path, kept string) error {
	if err := away(kept); err != nil {
		return err
	}
	from, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }() // It was only read.
	made, err := os.OpenFile(kept, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o700)
	if err != nil {
		return err
	}
	_, err = io.Copy(made, from)
	if err == nil {
		err = made.Sync()
	}
	return errors.Join(err, made.Close())
}

// put renames a program to path, whose program may be running.
func put(program, path string) error {
	tidy(path)
	running := aside(path)
	if err := os.Rename(path, running); err != nil {
		return err
	}
	if err := os.Rename(program, path); err != nil {
		return errors.Join(err, os.Rename(running, path))
	}
	_ = os.Remove(running) // Not while it runs; tidy does it at the next update.
	return nil
}

// away removes a file, or renames it if it is a program that runs.
func away(path string) error {
	if err := os.Remove(path); err == nil || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return os.Rename(path, aside(path))
}

const runningEnding = ".running-"

// aside returns a name that nothing has.
func aside(path string) string {
	return fmt.Sprintf("%s%s%d", path, runningEnding, time.Now().UnixNano())
}

// tidy removes the programs that earlier updates have renamed, and that have ended.
func tidy(path string) {
	entries, _ := os.ReadDir(filepath.Dir(path)) // What stays costs only space.
	for _, e := range entries {
		for _, name := range []string{filepath.Base(path), filepath.Base(Old(path))} {
			if strings.HasPrefix(e.Name(), name+runningEnding) {
				_ = os.Remove(filepath.Join(filepath.Dir(path), e.Name()))
			}
		}
	}
}

// sameAccess has nothing to do: a file has the access that its directory gives.
func sameAccess(*os.File, string) error { return nil }

// syncDir has nothing to do: Windows makes a rename durable by itself.
func syncDir(string) error { return nil }
