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

// maxSocketPath is the longest path a unix socket may have here: 107 bytes on Linux, 103 on macOS.
var maxSocketPath = len(syscall.RawSockaddrUnix{}.Path) - 1

// dataDir is a data directory that this process holds the lock of.
type dataDir struct {
	root    string // absolute, links resolved
	account account
	lock    *os.File
}

func (d *dataDir) cluster() string { return filepath.Join(d.root, clusterName) }

// openDataDir makes the directory where it is missing and locks it.
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
	if err := d.account.checkPasses(root); err != nil {
		return nil, err
	}
	if d.lock, err = lockFile(filepath.Join(root, lockName)); err != nil {
		return nil, err
	}
	return d, nil
}

// makeDirs makes a directory and its missing parents, whatever the umask. Where we are root, who will
// not run Postgres, others may pass; that opens nothing, as what is in the directory is private.
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

// lockFile takes a lock that ends with this process, however it ends, and notes our pid in it.
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

// unlock leaves the file: removing it would let two others each lock one of their own.
func (d *dataDir) unlock() { _ = d.lock.Close() }

// version returns the major version of the cluster, or 0 where there is none.
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
		return 0, fmt.Errorf("%w: %s says %q", ErrOtherVersion, filepath.Join(d.cluster(), "PG_VERSION"), content)
	}
	return major, nil
}

// adopt gives the cluster to the account where it is root's, like a backup that root restored.
func (d *dataDir) adopt() error {
	info, err := os.Stat(d.cluster())
	if err != nil {
		return err
	}
	if !d.account.drop || ownerOf(info).uid == d.account.uid {
		return nil
	}
	return filepath.WalkDir(d.cluster(), func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, d.account.own(path))
	})
}

// initialise makes a cluster beside its place and moves it there when it is complete, so that an
// interrupted initdb leaves no half of a database.
func (d *dataDir) initialise(ctx context.Context, bin binaries, noSync bool) error {
	fresh := filepath.Join(d.root, newClusterName)
	if err := os.RemoveAll(fresh); err != nil {
		return err
	}
	if err := d.makePrivate(fresh); err != nil {
		return err
	}
	// Trust means: who reaches the socket is the superuser. It is acceptable only because the
	// socket is the one way in and lies in a directory that only the account may enter.
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
	return d.account.own(dir)
}

// syncDir makes a rename in dir survive a power cut.
func syncDir(dir string) error {
	file, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}

// makeSocketDir makes a directory for the socket that only the account may enter.
func (d *dataDir) makeSocketDir() (dir string, remove func(), err error) {
	dir = filepath.Join(d.root, socketDirName)
	// What an earlier server left there could make this one think that it still runs.
	if err := os.RemoveAll(dir); err != nil {
		return "", nil, err
	}
	socket := filepath.Join(dir, ".s.PGSQL."+strconv.Itoa(socketPort))
	// A comma would make two hosts of one directory for whoever connects.
	if len(socket) <= maxSocketPath && !strings.Contains(dir, ",") {
		return dir, func() { removeAll(dir) }, d.makePrivate(dir)
	}
	if dir, err = os.MkdirTemp("", tempSocketPrefix); err != nil {
		return "", nil, err
	}
	remove = func() { removeAll(dir) }
	resolved, err := filepath.EvalSymlinks(dir)
	if err == nil {
		err = d.account.checkPasses(filepath.Dir(resolved))
	}
	if err == nil {
		err = d.account.own(dir)
	}
	if err != nil {
		remove()
		return "", nil, fmt.Errorf("socket directory (in place of %s, whose path no socket can have): %w",
			filepath.Join(d.root, socketDirName), err)
	}
	return dir, remove, nil
}
