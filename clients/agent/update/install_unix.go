//go:build unix

package update

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// keep gives the program at path a second name, which replaces what has that name. A
// program that is replaced afterwards goes on under it.
func keep(path, kept string) error {
	// A link cannot replace a file, and a rename can.
	temporary, err := os.MkdirTemp(filepath.Dir(path), ".eclitunnel-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(temporary) }()
	second := filepath.Join(temporary, filepath.Base(path))
	if err := os.Link(path, second); err != nil {
		// File systems of USB sticks have no links, and some systems permit none to a
		// file of somebody else.
		if err := copyProgram(path, second); err != nil {
			return err
		}
	}
	return os.Rename(second, kept)
}

// copyProgram copies a program durably.
func copyProgram(path, to string) error {
	from, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }() // It was only read.
	made, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o700)
	if err != nil {
		return err
	}
	_, err = io.Copy(made, from)
	if err == nil {
		err = sameAccess(made, path)
	}
	if err == nil {
		err = made.Sync()
	}
	return errors.Join(err, made.Close())
}

// put renames a program to path, in one step.
func put(program, path string) error { return os.Rename(program, path) }

// sameAccess gives a file the mode of the program at path, and if root replaces that of
// somebody else, its owner.
func sameAccess(f *os.File, path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return f.Chmod(0o755)
	}
	if err != nil {
		return err
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 {
		if err := f.Chown(int(stat.Uid), int(stat.Gid)); err != nil {
			return err
		}
	}
	// Without the bits that would give rights to whoever runs it; others may have to
	// execute it, and nobody else may write it.
	return f.Chmod(info.Mode().Perm()&^0o022 | 0o500)
}

// syncDir makes renames durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		err = nil // Some file systems of networks and of user programs.
	}
	return errors.Join(err, d.Close())
}
