//go:build unix

package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const leftoverPoll = 50 * time.Millisecond

// pidFile is the content of postmaster.pid, which a running server keeps in its cluster.
type pidFile struct {
	pid       int
	cluster   string
	socketDir string
}

var errNoPID = errors.New("postmaster.pid contains no process id")

func readPIDFile(cluster string) (pidFile, error) {
	content, err := os.ReadFile(filepath.Join(cluster, "postmaster.pid"))
	if err != nil {
		return pidFile{}, err
	}
	// pid, data directory, start time, port, socket directory, …; later lines are written later.
	lines := append(strings.Split(string(content), "\n"), make([]string, 5)...)
	pid, err := strconv.Atoi(strings.TrimSpace(lines[0]))
	if err != nil || pid <= 0 {
		return pidFile{}, fmt.Errorf("%w: %q", errNoPID, lines[0])
	}
	return pidFile{pid: pid, cluster: lines[1], socketDir: lines[4]}, nil
}

// stopLeftover stops a server on the cluster whose panel was killed, and removes the files of a server
// that was itself killed. This process holds the lock, so no running panel uses them.
func stopLeftover(ctx context.Context, cluster string, logger *slog.Logger) error {
	left, err := readPIDFile(cluster)
	// A server that is killed between creating and writing the file leaves it empty. If running servers
	// can be found without the file, it is not needed.
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNoPID) && findsAllServers {
		left, err = pidFile{}, nil
	}
	if err != nil {
		return err
	}
	pids, err := serversOn(cluster)
	if err != nil {
		return fmt.Errorf("look for a leftover server: %w", err)
	}
	if len(pids) > 0 {
		logger.WarnContext(ctx, "stopping the database of an earlier run", slog.Any("pids", pids))
		if err := endServers(ctx, cluster, left.pid); err != nil {
			return err
		}
	}
	if strings.HasPrefix(filepath.Base(left.socketDir), tempSocketPrefix) {
		removeAll(left.socketDir)
	}
	if findsAllServers {
		// Postgres would not start if the pid in the file now belongs to another process.
		err := os.Remove(filepath.Join(cluster, "postmaster.pid"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// endServers asks the postmaster for a fast shutdown, and then all processes for an immediate one. The
// children of a dead postmaster end by themselves.
func endServers(ctx context.Context, cluster string, postmaster int) error {
	signals := []struct {
		signal   syscall.Signal
		everyone bool
		limit    time.Duration
	}{
		{syscall.SIGINT, false, fastLimit},
		{syscall.SIGQUIT, true, immediateLimit},
	}
	var pids []int
	for _, step := range signals {
		var err error
		if pids, err = serversOn(cluster); err != nil {
			return err
		}
		for _, pid := range pids {
			if step.everyone || pid == postmaster {
				// An error means that it has already ended.
				_ = syscall.Kill(pid, step.signal)
			}
		}
		if pids, err = awaitNoServers(ctx, cluster, step.limit); err != nil || len(pids) == 0 {
			return err
		}
	}
	return fmt.Errorf("the database of an earlier run did not stop (processes %v)", pids)
}

// awaitNoServers waits until no server process is left, and returns those that remain after limit. It
// polls because they are not children of this process.
func awaitNoServers(ctx context.Context, cluster string, limit time.Duration) ([]int, error) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	ticker := time.NewTicker(leftoverPoll)
	defer ticker.Stop()
	for {
		pids, err := serversOn(cluster)
		if err != nil || len(pids) == 0 {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return pids, ctx.Err()
		case <-timer.C:
			return pids, nil
		case <-ticker.C:
		}
	}
}
