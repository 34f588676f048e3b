//go:build unix && !linux

package postgres

import (
	"errors"
	"io/fs"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// findsAllServers reports whether serversOn finds all processes, including children of a dead
// postmaster.
const findsAllServers = false

// serversOn returns the postmaster of a cluster, if it runs. Because a pid may have been reused, the
// pid file must name this cluster and the process must run postgres.
func serversOn(cluster string) ([]int, error) {
	file, err := readPIDFile(cluster)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if file.cluster != cluster || syscall.Kill(file.pid, 0) != nil {
		return nil, nil
	}
	// ps fails for a process that has ended.
	name, err := exec.Command("ps", "-o", "comm=", "-p", strconv.Itoa(file.pid)).Output() //nolint:noctx // ps waits for nothing
	if err != nil || !strings.HasPrefix(filepath.Base(strings.TrimSpace(string(name))), "postgres") {
		return nil, nil
	}
	return []int{file.pid}, nil
}
