//go:build unix

package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
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
	if d.account, err = chooseAccount(root, d.cluster()); err != nil {
		return nil, err
	}
	if err := d.account.checkSearchable(root); err != nil {
		return nil, err
	}
	if err := d.checkOwned(); err != nil {
		return nil, err
	}
	if err := d.takeLock(); err != nil {
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
	// The last one is the highest. What root makes in a user's directory is the user's.
	for _, dir := range slices.Backward(missing) {
		if err := os.Chmod(dir, perm); err != nil {
			return err
		}
		parent, err := os.Stat(filepath.Dir(dir))
		if err != nil {
			return err
		}
		if owner := ownerOf(parent); os.Geteuid() == 0 && owner.uid != 0 {
			if err := os.Lchown(dir, int(owner.uid), int(owner.gid)); err != nil {
				return err
			}
		}
	}
	info, err := os.Stat(path)
	if err != nil || os.Geteuid() != 0 || ownerOf(info).uid != 0 {
		return err
	}
	return os.Chmod(path, info.Mode().Perm()|0o111)
}

// takeLock takes a lock that ends with this process, however it ends, and notes our pid in it.
func (d *dataDir) takeLock() error {
	path := filepath.Join(d.root, lockName)
	file, err := d.openOwn(lockName, 0)
	if err != nil {
		return err
	}
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		holder, _ := os.ReadFile(path) // only for the message
		return errors.Join(
			fmt.Errorf("%w: another process (pid %s) holds %s", ErrInUse, bytes.TrimSpace(holder), path), file.Close())
	}
	if err == nil {
		err = file.Truncate(0)
	}
	if err == nil {
		_, err = fmt.Fprintln(file, os.Getpid())
	}
	if err != nil {
		return errors.Join(fmt.Errorf("lock %s: %w", path, err), file.Close())
	}
	d.lock = file
	return nil
}

// unlock releases the lock but keeps the file: if it were removed, two processes could lock different
// files.
func (d *dataDir) unlock() { _ = d.lock.Close() }

// version returns the major version of the cluster, or 0 if there is no cluster.
func (d *dataDir) version() (int, error) {
	if _, err := os.Stat(d.cluster()); errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	var content []byte
	err := d.inCluster(clusterName, func(cluster *os.Root) (err error) {
		content, err = cluster.ReadFile("PG_VERSION")
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("not a database: %w", err)
	}
	major, err := strconv.Atoi(strings.TrimSpace(string(content)))
	if err != nil {
		return 0, fmt.Errorf("%w: %s contains %q", ErrOtherVersion, filepath.Join(d.cluster(), "PG_VERSION"), content)
	}
	return major, nil
}

// initialise makes a cluster beside its place and moves it there when it is complete, so that an
// interrupted initdb leaves no half of a database.
func (d *dataDir) initialise(ctx context.Context, bin binaries, noSync bool, logger *slog.Logger) error {
	fresh := filepath.Join(d.root, newClusterName)
	if err := os.RemoveAll(fresh); err != nil {
		return err
	}
	if err := d.makePrivate(fresh); err != nil {
		return err
	}
	args := []string{"-D", fresh, "--username=" + superuser, "--auth=reject", "--encoding=UTF8", "--locale=C"}
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
	err := d.inCluster(newClusterName, func(cluster *os.Root) error {
		return errors.Join(cluster.Remove(hbaName), cluster.Remove(identName), useUTC(cluster), d.restrictLogins(ctx, cluster, logger))
	})
	if err != nil {
		return err
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
	var problems []error
	for _, parent := range []string{os.TempDir(), "/tmp", "/var/tmp"} {
		if dir, err = d.makeTempSocketDir(parent); err == nil {
			return dir, func() { removeAll(dir) }, nil
		}
		problems = append(problems, err)
	}
	return "", nil, fmt.Errorf("the path of %s is too long for a socket, and no other directory will do (set TMPDIR to one, or use a shorter data directory): %w",
		filepath.Join(d.root, socketDirName), errors.Join(problems...))
}

// makeTempSocketDir makes a directory for the socket where TMPDIR or the system has temporary files.
func (d *dataDir) makeTempSocketDir(parent string) (string, error) {
	if !filepath.IsAbs(parent) || strings.Contains(parent, ",") {
		return "", fmt.Errorf("%s is not an absolute path without commas", parent)
	}
	parent, err := filepath.EvalSymlinks(parent)
	if err != nil {
		return "", err
	}
	if err := d.account.checkSearchable(parent); err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(parent, tempSocketPrefix)
	if err != nil {
		return "", err
	}
	if socket := filepath.Join(dir, ".s.PGSQL."+strconv.Itoa(socketPort)); len(socket) > maxSocketPath {
		err = fmt.Errorf("the path of %s is too long for a socket", parent)
	} else {
		err = d.account.chown(dir)
	}
	if err != nil {
		return "", errors.Join(err, os.Remove(dir))
	}
	return dir, nil
}
