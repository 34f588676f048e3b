//go:build !windows

package local

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/google/uuid"
)

const (
	// socketName is the file in a device's directory.
	socketName = "agent.sock"
	// maxPath is the longest path of a socket that all systems allow, in bytes.
	maxPath = 103
)

// dirName is the directory of a device: a short one, for maxPath.
func dirName(device uuid.UUID) string { return hex.EncodeToString(device[:nameBytes]) }

const nameBytes = 8

// CommonDir is the directory for the sockets of agents that run as root.
const CommonDir = "/var/run/eclitunnel"

// Listen makes the socket of a device. Only those may use it of whom the package
// documentation tells. The socket of an agent that was killed is replaced. Closing the
// listener removes it. The context bounds the making alone.
func Listen(ctx context.Context, p Place) (net.Listener, error) {
	dir := filepath.Join(p.Dir, dirName(p.Device))
	uid, gid, err := p.ids()
	if err != nil {
		return nil, err
	}
	if err := makeParent(p.Dir); err != nil {
		return nil, fmt.Errorf("directory of sockets: %w", err)
	}
	// While the directory is this user's alone nobody else can put a link in the way of
	// what follows. Its owner may, later on: then nothing is changed through it.
	if err := own(dir); err != nil {
		return nil, fmt.Errorf("directory of the socket: %w", err)
	}
	path := filepath.Join(dir, socketName)
	if len(path) > maxPath {
		return nil, fmt.Errorf("the path of the socket, %s, is longer than the %d bytes that the system allows", path, maxPath)
	}
	if c, err := dial(ctx, path); err == nil {
		_ = c.Close()
		return nil, ErrInUse
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("replace the socket: %w", err)
	}
	l, err := new(net.ListenConfig).Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen for programs of this machine: %w", err)
	}
	dirMode, mode := fs.FileMode(0o700), fs.FileMode(0o600)
	if gid >= 0 {
		dirMode, mode = 0o750, 0o660
	}
	err = errors.Join(os.Chmod(path, mode), lchown(path, uid, gid), os.Chmod(dir, dirMode), lchown(dir, uid, gid))
	if err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("keep the socket private: %w", err)
	}
	return &socket{l, dir}, nil
}

// socket is a listener with a directory of its own.
type socket struct {
	net.Listener
	dir string
}

// Close closes the listener and removes what Listen has made.
func (s *socket) Close() error {
	err := s.Listener.Close()
	_ = os.Remove(s.dir) // Its owner may have put something there.
	return err
}

// ids returns the owner and the group of the socket; -1: as they are.
func (p Place) ids() (uid, gid int, err error) {
	uid, gid = -1, -1
	if p.Owner != "" && os.Geteuid() == 0 {
		if uid, err = strconv.Atoi(p.Owner); err != nil || uid < 0 {
			return -1, -1, fmt.Errorf("the owner of the socket is not a uid: %q", p.Owner)
		}
	}
	if p.Group != "" {
		group, err := user.LookupGroup(p.Group)
		if err != nil {
			return -1, -1, fmt.Errorf("group of the socket: %w", err)
		}
		if gid, err = strconv.Atoi(group.Gid); err != nil {
			return -1, -1, fmt.Errorf("group of the socket: %w", err)
		}
	}
	return uid, gid, nil
}

// makeParent makes the directory for the sockets of all devices, or checks one that is
// there: whoever can write to it can put another directory in the place of a device's.
func makeParent(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	mode := fs.FileMode(0o700)
	if os.Geteuid() == 0 {
		mode = 0o755 // For agents of several people.
	}
	err := os.Mkdir(dir, mode)
	if err == nil {
		return os.Chmod(dir, mode) // The umask may have kept some of it.
	}
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if ok && owner.Uid != 0 && int(owner.Uid) != os.Geteuid() || info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("others can write to %s", dir)
	}
	return nil
}

// own makes a directory that is this user's alone, or makes one that is there so.
func own(dir string) error {
	err := os.Mkdir(dir, 0o700)
	if err == nil || !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return &fs.PathError{Op: "use", Path: dir, Err: syscall.ENOTDIR}
	}
	if os.Geteuid() == 0 {
		if err := os.Lchown(dir, 0, -1); err != nil {
			return err
		}
	}
	return os.Chmod(dir, 0o700)
}

// lchown changes owner and group, -1 for as they are. What is so already is not changed: a
// confined service may be forbidden to.
func lchown(path string, uid, gid int) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if is, ok := info.Sys().(*syscall.Stat_t); ok {
		if int(is.Uid) == uid {
			uid = -1
		}
		if int(is.Gid) == gid {
			gid = -1
		}
	}
	if uid < 0 && gid < 0 {
		return nil
	}
	return os.Lchown(path, uid, gid)
}

// Find returns the agents that listen in directories such as Place.Dir and let this user
// in, without asking them. A directory of a single device counts as well. If there are
// none it returns ErrNotAllowed where some let nobody of this user in, and otherwise nil.
func Find(ctx context.Context, dirs ...string) ([]*Client, error) {
	var found []*Client
	var refused error
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		paths := []string{filepath.Join(dir, socketName)}
		for _, e := range entries {
			if device, err := hex.DecodeString(e.Name()); err == nil && len(device) == nameBytes {
				paths = append(paths, filepath.Join(dir, e.Name(), socketName))
			}
		}
		for _, path := range paths {
			c, err := dial(ctx, path)
			switch {
			case err == nil:
				_ = c.Close()
				found = append(found, newClient(path))
			case errors.Is(err, fs.ErrPermission):
				refused = ErrNotAllowed
			}
		}
	}
	if len(found) > 0 {
		return found, nil
	}
	return nil, refused
}
