//go:build unix

package postgres_test

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/eclitunnel/eclitunnel/db/postgres"
	"github.com/eclitunnel/eclitunnel/internal/await"
)

// noSync is for servers whose data need not survive a power failure.
var noSync = map[string]string{"fsync": "off"}

func TestStart_KeepsDataAndLeavesNoProcess(t *testing.T) {
	// Missing parents, and characters that need quoting.
	dir := filepath.Join(sharedDir(t), "not there", `a,b "c"`)
	options := postgres.Options{DataDir: dir, Settings: noSync}
	server := start(t, options)
	if group, err := syscall.Getpgid(postmaster(t, dir)); err != nil || group == syscall.Getpgrp() {
		t.Errorf("it is in our process group and would get our Ctrl-C (%v)", err)
	}
	query(t, server.URL(), `CREATE TABLE kept AS SELECT 'data' AS x; SELECT 'ok'`)
	if listens := query(t, server.URL(), `SHOW listen_addresses`); listens != "" {
		t.Errorf("listens on %q", listens)
	}
	stop(t, server)
	stop(t, server)
	if pids := running(t, dir); len(pids) > 0 {
		t.Errorf("processes %v are left", pids)
	}
	if err := server.Err(); err != nil {
		t.Errorf("Err after Stop: %v", err)
	}
	again := start(t, options)
	if got := query(t, again.URL(), `SELECT x FROM kept`); got != "data" {
		t.Errorf("kept %q", got)
	}
}

func TestStart_OnlyTheAccountReachesTheSocket(t *testing.T) {
	dir := sharedDir(t)
	server := start(t, postgres.Options{DataDir: dir, Settings: noSync})
	u, err := url.Parse(server.URL())
	check(t, err)
	for _, private := range []string{u.Query().Get("host"), filepath.Join(dir, "cluster")} {
		info, err := os.Stat(private)
		check(t, err)
		if info.Mode().Perm() != 0o700 {
			t.Errorf("%s has mode %v", private, info.Mode())
		}
		if os.Geteuid() == 0 && info.Sys().(*syscall.Stat_t).Uid == 0 {
			t.Errorf("%s belongs to root", private)
		}
	}
}

func TestStart_AfterThePanelWasKilled(t *testing.T) {
	dir := sharedDir(t)
	panel := startPanel(t, dir, nil)
	query(t, panel.url, `CREATE TABLE kept AS SELECT 'data' AS x; SELECT 'ok'`)
	check(t, panel.cmd.Process.Kill())
	// Its server may still be stopping. The lock is released with the process.
	_ = panel.cmd.Wait()
	server := start(t, postgres.Options{DataDir: dir})
	if got := query(t, server.URL(), `SELECT x FROM kept`); got != "data" {
		t.Errorf("kept %q", got)
	}
	if pids := running(t, dir); !slices.Contains(pids, postmaster(t, dir)) {
		t.Errorf("the postmaster is not among %v", pids)
	}
}

// startLeftover starts a server without a panel, and returns a channel for the result of its Wait.
func startLeftover(t *testing.T, program, cluster string) (leftover *os.Process, ended <-chan error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, "-D", cluster,
		"-c", "listen_addresses=", "-c", "unix_socket_directories="+cluster)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: ownerOf(t, cluster)}
	cmd.Dir = cluster
	check(t, cmd.Start())
	end := make(chan error, 1)
	go func() { end <- cmd.Wait() }()
	awaitFile(t, filepath.Join(cluster, ".s.PGSQL.5432"))
	return cmd.Process, end
}

// On systems that do not end a server with its panel, it still runs at the next start.
func TestStart_StopsTheServerOfAnEarlierRun(t *testing.T) {
	dir := sharedDir(t)
	options := postgres.Options{DataDir: dir, Settings: noSync}
	first := start(t, options)
	query(t, first.URL(), `CREATE TABLE kept AS SELECT 'data' AS x; SELECT 'ok'`)
	program, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(postmaster(t, dir)), "exe"))
	if err != nil {
		t.Skip("needs /proc")
	}
	stop(t, first)

	_, ended := startLeftover(t, program, filepath.Join(dir, "cluster"))
	second := start(t, options)
	check(t, <-ended)
	if got := query(t, second.URL(), `SELECT x FROM kept`); got != "data" {
		t.Errorf("kept %q", got)
	}
}

func TestStart_AfterPostgresItselfWasKilled(t *testing.T) {
	dir := sharedDir(t)
	options := postgres.Options{DataDir: dir}
	first := start(t, options)
	query(t, first.URL(), `CREATE TABLE kept AS SELECT 'data' AS x; SELECT 'ok'`)
	check(t, syscall.Kill(postmaster(t, dir), syscall.SIGKILL))
	<-first.Done()
	if err := first.Err(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("Err after it was killed: %v", err)
	}
	stop(t, first)
	second := start(t, options)
	if got := query(t, second.URL(), `SELECT x FROM kept`); got != "data" {
		t.Errorf("kept %q", got)
	}
}

// After a reboot, the recorded pid of a killed server may belong to another process.
func TestStart_SparesAProcessWithAReusedPid(t *testing.T) {
	dir := sharedDir(t)
	options := postgres.Options{DataDir: dir, Settings: noSync}
	stop(t, start(t, options))
	cluster := filepath.Join(dir, "cluster")
	innocent := exec.CommandContext(t.Context(), "sleep", "600")
	innocent.SysProcAttr = &syscall.SysProcAttr{Credential: ownerOf(t, cluster)}
	check(t, innocent.Start())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = innocent.Wait() // it can only be killed
	}()
	check(t, os.WriteFile(filepath.Join(cluster, "postmaster.pid"),
		[]byte(strconv.Itoa(innocent.Process.Pid)+"\n"+cluster+"\n1\n5432\n/none\n"), 0o600))

	start(t, options)
	select {
	case <-ended:
		t.Error("a process that is not a server was killed")
	default:
		check(t, innocent.Process.Kill())
		<-ended
	}
}

func TestStart_RejectsAnotherMajorVersionUnmodified(t *testing.T) {
	dir := sharedDir(t)
	options := postgres.Options{DataDir: dir, Settings: noSync}
	stop(t, start(t, options))
	cluster := filepath.Join(dir, "cluster")
	version := filepath.Join(cluster, "PG_VERSION")
	original, err := os.ReadFile(version)
	check(t, err)
	check(t, os.WriteFile(version, []byte("99\n"), 0o600))
	before := listing(t, cluster)

	err = startError(t, options)
	if !errors.Is(err, postgres.ErrOtherVersion) || !strings.Contains(err.Error(), "99") {
		t.Errorf("got %v", err)
	}
	if after := listing(t, cluster); !maps.Equal(before, after) {
		t.Error("the data was modified")
	}
	check(t, os.WriteFile(version, original, 0o600))
	start(t, options)
}

func TestStart_RejectsWhatIsNotADatabase(t *testing.T) {
	dir := sharedDir(t)
	precious := filepath.Join(dir, "cluster", "precious")
	check(t, os.Mkdir(filepath.Dir(precious), 0o700))
	check(t, os.WriteFile(precious, nil, 0o600))
	if err := startError(t, postgres.Options{DataDir: dir}); !strings.Contains(err.Error(), "not a database") {
		t.Errorf("got %v", err)
	}
	if !exists(t, precious) {
		t.Error("a file is gone")
	}
}

func TestStart_RejectsASecondServerOnADirectory(t *testing.T) {
	dir := sharedDir(t)
	options := postgres.Options{DataDir: dir, Settings: noSync}
	first := start(t, options)
	err := startError(t, options)
	if !errors.Is(err, postgres.ErrInUse) || !strings.Contains(err.Error(), strconv.Itoa(os.Getpid())) {
		t.Errorf("got %v", err)
	}
	query(t, first.URL(), `SELECT 'still here'`)
}

func TestStart_DiscardsAnIncompleteInitdb(t *testing.T) {
	dir := sharedDir(t)
	half := filepath.Join(dir, "cluster.new")
	check(t, os.Mkdir(half, 0o700))
	check(t, os.WriteFile(filepath.Join(half, "PG_VERSION"), nil, 0o600))
	start(t, postgres.Options{DataDir: dir, Settings: noSync})
	if exists(t, half) {
		t.Error("it is still there")
	}
}

func TestStart_InterruptedInitdbLeavesNoCluster(t *testing.T) {
	dir := sharedDir(t)
	options := postgres.Options{DataDir: dir, Settings: noSync}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		server, err := postgres.Start(ctx, options)
		if err == nil {
			err = errors.Join(errors.New("it was not interrupted"), server.Stop(context.Background()))
		}
		ended <- err
	}()
	awaitFile(t, filepath.Join(dir, "cluster.new", "PG_VERSION")) // initdb is at work
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if exists(t, filepath.Join(dir, "cluster")) {
		t.Error("a cluster was made")
	}
	if pids := running(t, dir); len(pids) > 0 {
		t.Errorf("processes %v are left", pids)
	}
	start(t, options)
}

func TestStart_LongPathPutsTheSocketElsewhere(t *testing.T) {
	dir := filepath.Join(sharedDir(t), strings.Repeat("long/", 30))
	server := start(t, postgres.Options{DataDir: dir, Settings: noSync})
	query(t, server.URL(), `SELECT 'ok'`)
	u, err := url.Parse(server.URL())
	check(t, err)
	socketDir := u.Query().Get("host")
	info, err := os.Stat(socketDir)
	check(t, err)
	if info.Mode().Perm() != 0o700 {
		t.Errorf("%s has mode %v", socketDir, info.Mode())
	}
	stop(t, server)
	if exists(t, socketDir) {
		t.Errorf("%s is still there", socketDir)
	}
}

func TestStart_NamesADirectoryWithoutSearchPermission(t *testing.T) {
	needRoot(t)
	closed := filepath.Join(sharedDir(t), "closed")
	check(t, os.Mkdir(closed, 0o700))
	err := startError(t, postgres.Options{DataDir: filepath.Join(closed, "data")})
	if !strings.Contains(err.Error(), "chmod o+x "+closed+"`") {
		t.Errorf("got %v", err)
	}
}

// The data directory may have been created with a strict umask.
func TestStart_LetsItsAccountEnterTheDataDirectory(t *testing.T) {
	needRoot(t)
	dir := filepath.Join(sharedDir(t), "data")
	check(t, os.Mkdir(dir, 0o700))
	start(t, postgres.Options{DataDir: dir, Settings: noSync})
}

func TestStart_ExplainsHowToInstallPostgres(t *testing.T) {
	err := startError(t, postgres.Options{DataDir: sharedDir(t), BinDir: t.TempDir()})
	if !errors.Is(err, postgres.ErrNotInstalled) {
		t.Errorf("got %v", err)
	}
	for _, hint := range []string{"apt install", "dnf install", "brew install", "ECLITUNNEL_DATABASE_URL"} {
		if !strings.Contains(err.Error(), hint) {
			t.Errorf("%q is missing in: %v", hint, err)
		}
	}
}

func TestStart_ReportsErrorsOfPostgres(t *testing.T) {
	err := startError(t, postgres.Options{DataDir: sharedDir(t), Settings: map[string]string{"fsync": "off", "work_mem": "plenty"}})
	if !strings.Contains(err.Error(), `invalid value for parameter "work_mem"`) {
		t.Errorf("got %v", err)
	}
}

func TestStop_WithoutTimeStillStopsIt(t *testing.T) {
	dir := sharedDir(t)
	server := start(t, postgres.Options{DataDir: dir})
	query(t, server.URL(), `CREATE TABLE kept AS SELECT 'data' AS x; SELECT 'ok'`)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_ = server.Stop(ctx) // an error, unless Postgres was faster
	if pids := running(t, dir); len(pids) > 0 {
		t.Errorf("processes %v are left", pids)
	}
	again := start(t, postgres.Options{DataDir: dir})
	if got := query(t, again.URL(), `SELECT x FROM kept`); got != "data" {
		t.Errorf("kept %q", got)
	}
}

func TestStart_AsAnOrdinaryUser(t *testing.T) {
	needRoot(t)
	nobody, err := user.Lookup("nobody")
	check(t, err)
	uid, err := strconv.ParseUint(nobody.Uid, 10, 32)
	check(t, err)
	gid, err := strconv.ParseUint(nobody.Gid, 10, 32)
	check(t, err)
	dir := sharedDir(t)
	check(t, os.Chown(dir, int(uid), int(gid)))

	panel := startPanel(t, dir, &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)})
	query(t, panel.url, `CREATE TABLE kept AS SELECT 'data' AS x; SELECT 'ok'`)
	if owner := ownerOf(t, filepath.Join(dir, "cluster")); uint64(owner.Uid) != uid {
		t.Errorf("the cluster belongs to user %d", owner.Uid)
	}
	check(t, panel.stdin.Close())
	check(t, panel.cmd.Wait())
	if pids := running(t, dir); len(pids) > 0 {
		t.Errorf("processes %v are left", pids)
	}
	// Root continues to run it as its owner, even if there is a user postgres.
	server := start(t, postgres.Options{DataDir: dir, Settings: noSync})
	if got := query(t, server.URL(), `SELECT x FROM kept`); got != "data" {
		t.Errorf("kept %q", got)
	}
	if owner := ownerOf(t, filepath.Join(dir, "cluster")); uint64(owner.Uid) != uid {
		t.Errorf("the cluster belongs to user %d", owner.Uid)
	}
}

func TestStart_TakesOwnershipOfABackupRestoredByRoot(t *testing.T) {
	needRoot(t)
	dir := sharedDir(t)
	options := postgres.Options{DataDir: dir, Settings: noSync}
	stop(t, start(t, options))
	check(t, filepath.WalkDir(filepath.Join(dir, "cluster"), func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, 0, 0))
	}))
	start(t, options)
}

func ownerOf(t *testing.T, path string) *syscall.Credential {
	t.Helper()
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(path)
	check(t, err)
	stat := info.Sys().(*syscall.Stat_t)
	return &syscall.Credential{Uid: stat.Uid, Gid: stat.Gid}
}

// awaitFile waits for a file that another process creates.
func awaitFile(t *testing.T, path string) {
	t.Helper()
	await.Within(t, limit, "file "+path, func(context.Context) (bool, error) { return exists(t, path), nil })
}

func exists(t *testing.T, path string) bool {
	t.Helper()
	_, err := os.Lstat(path)
	if !errors.Is(err, fs.ErrNotExist) {
		check(t, err)
	}
	return err == nil
}
