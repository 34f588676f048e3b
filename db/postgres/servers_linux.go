package postgres

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// seesEveryServer says whether serversOn finds all there are, children of a dead postmaster
// included.
const seesEveryServer = true

// serversOn lists the Postgres processes of a cluster: they, and only they, run postgres with the
// cluster as their working directory. A pid alone proves nothing: it may be somebody else's by now.
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
		// Errors mean that it has ended, is a zombie, or is not ours to look at and so not our server.
		program, err := os.Readlink(filepath.Join("/proc", entry.Name(), "exe"))
		if err != nil || !strings.HasPrefix(filepath.Base(program), "postgres") {
			continue
		}
		cwd, err := os.Stat(filepath.Join("/proc", entry.Name(), "cwd"))
		if err == nil && os.SameFile(cwd, here) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}
