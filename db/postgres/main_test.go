//go:build unix

package postgres_test

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lib/pq"
	"go.uber.org/goleak"

	"github.com/eclitunnel/eclitunnel/db/postgres"
)

// hostDir is an environment variable that makes the test binary a panel, which runs a server on that directory
// until its standard input ends.
const hostDir = "POSTGRES_TEST_HOST_DIR"

// dialURL is one that makes it connect to that URL, and print the user whom Postgres sees.
const dialURL = "POSTGRES_TEST_DIAL_URL"

const limit = time.Minute

func TestMain(m *testing.M) {
	if dir := os.Getenv(hostDir); dir != "" {
		if err := host(dir); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if url := os.Getenv(dialURL); url != "" {
		user, err := queryURL(context.Background(), url, `SELECT current_user::text`)
		fmt.Println(user, err)
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func host(dir string) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	server, err := postgres.Start(ctx, postgres.Options{DataDir: dir})
	if err != nil {
		return err
	}
	fmt.Println(server.URL())
	_, err = io.Copy(io.Discard, os.Stdin)
	return errors.Join(err, server.Stop(ctx))
}

// panel is a process that hosts a server.
type panel struct {
	cmd   *exec.Cmd
	stdin io.Closer
	url   string
}

// startPanel executes the test binary as a panel, as the given user or, if nil, the current one.
func startPanel(t *testing.T, dir string, as *syscall.Credential) *panel {
	t.Helper()
	program, err := os.Executable()
	check(t, err)
	if as != nil {
		// Only the current user can access the directory in which go test builds.
		program = copyProgram(t, program)
	}
	cmd := exec.CommandContext(t.Context(), program)
	cmd.Env = append(os.Environ(), hostDir+"="+dir)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	stdin, err := cmd.StdinPipe()
	check(t, err)
	stdout, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	check(t, err)
	if !strings.HasPrefix(line, "postgres://") {
		t.Fatalf("the panel says %q", line)
	}
	return &panel{cmd: cmd, stdin: stdin, url: strings.TrimSpace(line)}
}

func copyProgram(t *testing.T, program string) string {
	t.Helper()
	content, err := os.ReadFile(program)
	check(t, err)
	path := filepath.Join(sharedDir(t), "panel")
	check(t, os.WriteFile(path, content, 0o755))
	return path
}

// sharedDir creates a directory that every user may enter, unlike t.TempDir.
func sharedDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "eclitunnel-postgres-test-")
	check(t, err)
	t.Cleanup(func() { check(t, os.RemoveAll(dir)) })
	check(t, os.Chmod(dir, 0o755))
	dir, err = filepath.EvalSymlinks(dir)
	check(t, err)
	return dir
}

func start(t *testing.T, options postgres.Options) *postgres.Server {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	server, err := postgres.Start(ctx, options)
	check(t, err)
	t.Cleanup(func() { stop(t, server) })
	return server
}

func stop(t *testing.T, server *postgres.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	check(t, server.Stop(ctx))
}

// startError returns the error of a start that must fail.
func startError(t *testing.T, options postgres.Options) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	server, err := postgres.Start(ctx, options)
	if err == nil {
		stop(t, server)
		t.Fatal("started")
	}
	return err
}

// query runs SQL that returns one string.
func query(t *testing.T, url, statement string) string {
	t.Helper()
	answer, err := queryURL(t.Context(), url, statement)
	check(t, err)
	return answer
}

func queryURL(ctx context.Context, url, statement string) (answer string, err error) {
	connector, err := pq.NewConnector(url)
	if err != nil {
		return "", err
	}
	db := sql.OpenDB(connector)
	err = db.QueryRowContext(ctx, statement).Scan(&answer)
	return answer, errors.Join(err, db.Close())
}

func postmaster(t *testing.T, dir string) int {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(dir, "cluster", "postmaster.pid"))
	check(t, err)
	first, _, _ := strings.Cut(string(content), "\n")
	pid, err := strconv.Atoi(first)
	check(t, err)
	return pid
}

// running lists the processes that work in the cluster, as Linux shows them.
func running(t *testing.T, dir string) []int {
	t.Helper()
	if _, err := os.Stat("/proc/self/cwd"); err != nil {
		t.Skip("needs /proc")
	}
	entries, err := os.ReadDir("/proc")
	check(t, err)
	var pids []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if cwd, err := os.Readlink(filepath.Join("/proc", entry.Name(), "cwd")); err == nil && strings.HasPrefix(cwd, dir) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// listing maps each file under dir to its mode, owner and time of change.
func listing(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	check(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		stat := info.Sys().(*syscall.Stat_t)
		files[path] = fmt.Sprint(info.Mode(), info.ModTime(), stat.Uid)
		return nil
	}))
	return files
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
