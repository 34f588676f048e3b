//go:build unix

package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

const (
	lockName       = "lock"
	clusterName    = "cluster"
	newClusterName = "cluster.new"
	socketDirName  = "run"
	logName        = "postgres.log"

	tempSocketPrefix = "eclitunnel-postgres-"
)

// maxSocketPath is the maximum length of a Unix socket's path: 107 bytes on Linux, 103 on macOS.
var maxSocketPath = len(syscall.RawSockaddrUnix{}.Path) - 1

// dataDir is a data directory that this process has locked.
type dataDir struct {
	root    string // absolute, links resolved
	account account
	lock    *os.File
}

func (d *dataDir) cluster() string { return filepath.Join(d.root, clusterName) }

// openDataDir creates the directory if it is missing, and locks it.
func openDataDir(path string) (*dataDir, error) {
	root, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if err := makeDirs(root); err != nil {
		return nil, err
	}
	if root, err = filepath.EvalSymlinks(root); err != nil {
		return nil, err
	}
	d := &dataDir{root: root}
	if d.account, err = chooseAccount(d.cluster()); err != nil {
		return nil, err
	}
	if err := d.account.checkSearchable(root); err != nil {
		return nil, err
	}
	if d.lock, err = lockFile(filepath.Join(root, lockName)); err != nil {
		return nil, err
	}
	return d, nil
}

// makeDirs creates a directory and its missing parents, regardless of the umask. If this process runs
// as root, other users get search permission, because Postgres runs as one of them. The content of the
// directory is private.
func makeDirs(path string) error {
	perm := fs.FileMode(0o700)
	if os.Geteuid() == 0 {
		perm = 0o711
	}
	var missing []string
	for dir := path; ; dir = filepath.Dir(dir) {
		_, err := os.Stat(dir)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		missing = append(missing, dir)
	}
	if err := os.MkdirAll(path, perm); err != nil {
		return err
	}
	for _, dir := range missing {
		if err := os.Chmod(dir, perm); err != nil {
			return err
		}
	}
	info, err := os.Stat(path)
	if err != nil || os.Geteuid() != 0 || ownerOf(info).uid != 0 {
		return err
	}
	return os.Chmod(path, info.Mode().Perm()|0o111)
}

// lockFile acquires a lock that is released when this process ends, and writes the pid to the file.
func lockFile(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		holder, _ := os.ReadFile(path) // only for the message
		return nil, errors.Join(
			fmt.Errorf("%w: another process (pid %s) holds %s", ErrInUse, bytes.TrimSpace(holder), path), file.Close())
	}
	if err == nil {
		err = file.Truncate(0)
	}
	if err == nil {
		_, err = fmt.Fprintln(file, os.Getpid())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), file.Close())
	}
	return file, nil
}

// unlock releases the lock but keeps the file: if it were removed, two processes could lock different
// files.
func (d *dataDir) unlock() { _ = d.lock.Close() }

// version returns the major version of the cluster, or 0 if there is no cluster.
func (d *dataDir) version() (int, error) {
	if _, err := os.Stat(d.cluster()); errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	content, err := os.ReadFile(filepath.Join(d.cluster(), "PG_VERSION"))
	if err != nil {
		return 0, fmt.Errorf("%s is not a database: %w", d.cluster(), err)
	}
	major, err := strconv.Atoi(strings.TrimSpace(string(content)))
	if err != nil {
		return 0, fmt.Errorf("%w: %s contains %q", ErrOtherVersion, filepath.Join(d.cluster(), "PG_VERSION"), content)
	}
	return major, nil
}

// takeOwnership makes the account the owner of a cluster that belongs to root, such as a backup that
// root has restored.
func (d *dataDir) takeOwnership() error {
	info, err := os.Stat(d.cluster())
	if err != nil {
		return err
	}
	if !d.account.drop || ownerOf(info).uid == d.account.uid {
		return nil
	}
	return filepath.WalkDir(d.cluster(), func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, d.account.chown(path))
	})
}

// initialise creates a cluster in a temporary directory and renames it when it is complete, so that an
// interrupted initdb leaves no incomplete cluster.
func (d *dataDir) initialise(ctx context.Context, bin binaries, noSync bool) error {
	fresh := filepath.Join(d.root, newClusterName)
	if err := os.RemoveAll(fresh); err != nil {
		return err
	}
	if err := d.makePrivate(fresh); err != nil {
		return err
	}
	// "trust" makes anyone who can connect to the socket the superuser. This is acceptable because
	// Postgres listens on nothing else, and only the account may enter the socket's directory.
	args := []string{"-D", fresh, "--username=" + superuser, "--auth=trust", "--encoding=UTF8", "--locale=C"}
	if noSync {
		args = append(args, "--no-sync")
	}
	var output bytes.Buffer
	cmd := d.account.command(filepath.Join(bin.dir, "initdb"), args...)
	cmd.Dir = fresh
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := run(ctx, cmd); err != nil {
		removeAll(fresh)
		return fmt.Errorf("initdb: %w:\n%s", err, lastLines(output.Bytes()))
	}
	if err := os.Rename(fresh, d.cluster()); err != nil {
		return err
	}
	return syncDir(d.root)
}

func (d *dataDir) makePrivate(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	return d.account.chown(dir)
}

// syncDir syncs dir, so that a rename in it survives a power failure.
func syncDir(dir string) error {
	file, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}

// makeSocketDir creates a directory for the socket, which only the account may enter.
func (d *dataDir) makeSocketDir() (dir string, remove func(), err error) {
	dir = filepath.Join(d.root, socketDirName)
	// Files of an earlier server could make this one believe that it still runs.
	if err := os.RemoveAll(dir); err != nil {
		return "", nil, err
	}
	socket := filepath.Join(dir, ".s.PGSQL."+strconv.Itoa(socketPort))
	// libpq would take a directory with a comma for two hosts.
	if len(socket) <= maxSocketPath && !strings.Contains(dir, ",") {
		return dir, func() { removeAll(dir) }, d.makePrivate(dir)
	}
	if dir, err = os.MkdirTemp("", tempSocketPrefix); err != nil {
		return "", nil, err
	}
	remove = func() { removeAll(dir) }
	resolved, err := filepath.EvalSymlinks(dir)
	if err == nil {
		err = d.account.checkSearchable(filepath.Dir(resolved))
	}
	if err == nil {
		err = d.account.chown(dir)
	}
	if err != nil {
		remove()
		return "", nil, fmt.Errorf("socket directory (instead of %s, whose path is not usable for a socket): %w",
			filepath.Join(d.root, socketDirName), err)
	}
	return dir, remove, nil
}
