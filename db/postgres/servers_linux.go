package postgres

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// findsAllServers reports whether serversOn finds all processes, including children of a dead
// postmaster.
const findsAllServers = true

// serversOn lists the Postgres processes of a cluster: those that run postgres with the cluster as
// their working directory. A recorded pid is not sufficient, because it may have been reused.
func serversOn(cluster string) ([]int, error) {
	here, err := os.Stat(cluster)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		cwd, err := os.Stat(filepath.Join("/proc", entry.Name(), "cwd"))
		// Root in a container may not be allowed to inspect processes of other users
		// (CAP_SYS_PTRACE), such as a server that it started itself. It can read their command line,
		// which any process can forge, so the process must also run as the owner of the directory.
		if errors.Is(err, fs.ErrPermission) && isPostmaster(entry.Name(), cluster) && sameOwner(entry, here) {
			pids = append(pids, pid)
			continue
		}
		// Other errors mean that it has ended, is a zombie, or is not a server on this cluster.
		if err != nil || !os.SameFile(cwd, here) {
			continue
		}
		// A process that is ending has no program, but still maps the shared memory, without which
		// Postgres cannot start again. It loses its working directory after that.
		program, err := os.Readlink(filepath.Join("/proc", entry.Name(), "exe"))
		if errors.Is(err, fs.ErrNotExist) || err == nil && strings.HasPrefix(filepath.Base(program), "postgres") {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// sameOwner reports whether a process runs as the owner of a directory.
func sameOwner(process fs.DirEntry, dir fs.FileInfo) bool {
	info, err := process.Info()
	if err != nil {
		return false
	}
	its, ok := info.Sys().(*syscall.Stat_t)
	owner, known := dir.Sys().(*syscall.Stat_t)
	return ok && known && its.Uid == owner.Uid
}

// isPostmaster reports whether a process was started as "postgres -D cluster …".
func isPostmaster(pid, cluster string) bool {
	content, err := os.ReadFile(filepath.Join("/proc", pid, "cmdline"))
	if err != nil {
		return false
	}
	args := strings.Split(string(content), "\x00")
	return len(args) > 2 && strings.HasPrefix(filepath.Base(args[0]), "postgres") && args[1] == "-D" && args[2] == cluster
}
