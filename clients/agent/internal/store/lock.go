package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/gofrs/flock"
)

// ErrLocked means that another process holds a lock.
var ErrLocked = errors.New("another process holds the lock")

// noteSize is the size of a note, in bytes. It begins at the second byte of the file: on
// Windows, nobody else can read the first while it is locked.
const (
	noteStart = 1
	noteSize  = 200
)

// Lock is an exclusive lock on a file, with a note of its holder in it. The operating
// system releases it when the process ends, however it ends. The file stays.
type Lock struct {
	file *flock.Flock
}

// TryLock takes the lock of a file, which it makes, and its directory, where they are
// missing. It does not wait: it fails with ErrLocked while another process has it, or
// looks whether one has.
func TryLock(path string) (*Lock, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	file := flock.New(path, flock.SetFlag(os.O_CREATE|os.O_RDWR|noFollow))
	locked, err := file.TryLock()
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	if !locked {
		return nil, ErrLocked
	}
	giveToOwner(path, dir)
	return &Lock{file: file}, nil
}

// SetNote replaces the note. It has at most 200 bytes, and spaces at its end are lost.
func (l *Lock) SetNote(note []byte) error {
	if len(note) > noteSize {
		return fmt.Errorf("a note of %d bytes", len(note))
	}
	f, err := os.OpenFile(l.file.Path(), os.O_WRONLY|noFollow, 0)
	if err != nil {
		return err
	}
	padded := append(bytes.Clone(note), bytes.Repeat([]byte{' '}, noteSize-len(note))...)
	_, err = f.WriteAt(padded, noteStart)
	return errors.Join(err, f.Close())
}

// Unlock releases the lock.
func (l *Lock) Unlock() error { return l.file.Unlock() }

// Holder returns whether a process holds the lock of a file, and its note. The error is
// fs.ErrNotExist where there is no file. Holder may make a TryLock at the same time
// fail.
func Holder(path string) (note []byte, held bool, err error) {
	file := flock.New(path, flock.SetFlag(os.O_RDONLY|noFollow))
	free, err := file.TryRLock()
	if err != nil {
		return nil, false, err
	}
	if free {
		return nil, false, file.Unlock()
	}
	f, err := os.OpenFile(path, os.O_RDONLY|noFollow, 0)
	if err != nil {
		return nil, true, err
	}
	defer func() { _ = f.Close() }() // It was only read.
	note, err = io.ReadAll(io.NewSectionReader(f, noteStart, noteSize))
	return bytes.TrimRight(note, " "), true, err
}
