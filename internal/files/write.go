package files

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// maxLinks is how many symbolic links are followed, as on Linux.
const maxLinks = 40

// Write writes a file that only this user can read, and its directory where that is
// missing. After a crash the file has either the old content or the new. A symbolic link
// is kept: the file that it leads to is written, and made where it is missing. The file
// of another user that root replaces stays that user's.
//
// A file that cannot be replaced, because it is a mount point or its directory is
// read-only, is overwritten in place instead. After an error it has its old content; a
// crash of the machine at that moment may leave a mixture.
func Write(path string, data []byte) error {
	target, old, err := find(path)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o700); err != nil {
		return err
	}
	err = replace(target, old, data)
	// On a full disk, overwriting may fail halfway, and so may putting it right.
	if err == nil || old == nil || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return err
	}
	return overwrite(target, old, data)
}

// Prove returns an error unless Write can write size bytes at path. It does so by
// writing them: afterwards the file has its old content, or does not exist, and neither
// a crash nor a full disk leaves more behind than spaces at its end.
func Prove(path string, size int) error {
	target, old, err := find(path)
	if err != nil {
		return err
	}
	var content []byte
	if old != nil {
		if content, err = os.ReadFile(target); err != nil {
			return err
		}
	}
	padding := bytes.Repeat([]byte(" "), max(0, size-len(content)))
	if err := Write(target, append(content[:len(content):len(content)], padding...)); err != nil {
		return err
	}
	if old == nil {
		return Remove(target)
	}
	return Write(target, content)
}

// Remove removes a file durably. A symbolic link is kept: the file that it leads to is
// removed. A file that does not exist is no error.
func Remove(path string) error {
	path, err := follow(path)
	if err != nil {
		return err
	}
	err = os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// find follows the symbolic links of path to the regular file that is there, or to be
// made; old is nil if there is none.
func find(path string) (target string, old fs.FileInfo, err error) {
	if target, err = follow(path); err != nil {
		return "", nil, err
	}
	old, err = os.Lstat(target)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return target, nil, nil
	case err != nil:
		return "", nil, err
	case old.IsDir():
		return "", nil, fmt.Errorf("%s is a directory; name a file in it", path)
	case !old.Mode().IsRegular():
		return "", nil, fmt.Errorf("%s is not a regular file", path)
	}
	return target, old, nil
}

// follow returns where the symbolic link path leads, whether or not there is something,
// and path if it is no link.
func follow(path string) (string, error) {
	for range maxLinks {
		to, err := os.Readlink(path)
		if err != nil {
			return path, nil // Not a link, or nothing is there.
		}
		if !filepath.IsAbs(to) {
			dir := filepath.Dir(path)
			// In "link/..", ".." is the parent of what the link leads to.
			if real, err := filepath.EvalSymlinks(dir); err == nil {
				dir = real
			}
			to = filepath.Join(dir, to)
		}
		path = to
	}
	return "", fmt.Errorf("%s: too many symbolic links", path)
}

// replace renames a new file to target, which is old or does not exist.
func replace(target string, old fs.FileInfo, data []byte) error {
	temp, err := os.CreateTemp(filepath.Dir(target), ".eclitunnel-*") // Mode 0600.
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(temp.Name()) }() // After success it has been renamed.
	err = setAccess(temp, old)
	if err == nil {
		_, err = temp.Write(data)
	}
	if err == nil {
		err = temp.Sync()
	}
	if closeErr := temp.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(temp.Name(), target)
	}
	if err == nil {
		err = syncDir(filepath.Dir(target))
	}
	return err
}

// overwrite writes data over the content of a file.
func overwrite(target string, info fs.FileInfo, data []byte) (err error) {
	f, err := os.OpenFile(target, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	old, err := readAll(target, f)
	if err != nil {
		return err
	}
	_ = setAccess(f, info) // Only its owner can.
	if err := overwriteOpen(f, data, len(old)); err != nil {
		return errors.Join(err, overwriteOpen(f, old, 0))
	}
	return nil
}

// overwriteOpen writes data over a file. It begins with what lies beyond size, which may
// not fit on the disk; the rest takes no more space.
func overwriteOpen(f *os.File, data []byte, size int) error {
	size = min(size, len(data))
	_, err := f.WriteAt(data[size:], int64(size))
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		_, err = f.WriteAt(data[:size], 0)
	}
	if err == nil {
		err = f.Truncate(int64(len(data)))
	}
	if err == nil {
		err = f.Sync()
	}
	return err
}
