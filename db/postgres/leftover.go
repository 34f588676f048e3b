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

// pidFile is what a running server writes into its cluster.
type pidFile struct {
	pid       int
	cluster   string
	socketDir string
}

var errNoPID = errors.New("postmaster.pid names no process")

func readPIDFile(cluster string) (pidFile, error) {
	content, err := os.ReadFile(filepath.Join(cluster, "postmaster.pid"))
	if err != nil {
		return pidFile{}, err
	}
	// pid, data directory, start time, port, socket directory, …; the later ones come later.
	lines := append(strings.Split(string(content), "\n"), make([]string, 5)...)
	pid, err := strconv.Atoi(strings.TrimSpace(lines[0]))
	if err != nil || pid <= 0 {
		return pidFile{}, fmt.Errorf("%w: %q", errNoPID, lines[0])
	}
	return pidFile{pid: pid, cluster: lines[1], socketDir: lines[4]}, nil
}

// stopLeftover ends a server on the cluster whose panel was killed, and clears what a server that
// was killed itself left behind. We hold the lock, so no living panel needs it.
func stopLeftover(ctx context.Context, cluster string, logger *slog.Logger) error {
	left, err := readPIDFile(cluster)
	// Who is killed between making the file and writing it leaves it empty. What runs is seen without.
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNoPID) && seesEveryServer {
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
	if seesEveryServer {
		// Postgres would refuse to start if the pid in it belongs to some other process by now.
		err := os.Remove(filepath.Join(cluster, "postmaster.pid"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// endServers asks the postmaster for a fast shutdown, and then everybody for an immediate one. The
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
				// One that has ended meanwhile is what we want.
				_ = syscall.Kill(pid, step.signal)
			}
		}
		if pids, err = awaitNoServers(ctx, cluster, step.limit); err != nil || len(pids) == 0 {
			return err
		}
	}
	return fmt.Errorf("the database of an earlier run does not stop (processes %v)", pids)
}

// awaitNoServers returns the processes that are still there after limit. They are not our
// children, so nothing can tell us but looking again.
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
