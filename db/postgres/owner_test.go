//go:build unix

package postgres_test

import (
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/eclitunnel/eclitunnel/db/postgres"
)

func nobody(t *testing.T) *syscall.Credential {
	t.Helper()
	return credential(t, "nobody")
}

func credential(t *testing.T, name string) *syscall.Credential {
	t.Helper()
	needRoot(t)
	found, err := user.Lookup(name)
	check(t, err)
	uid, err := strconv.ParseUint(found.Uid, 10, 32)
	check(t, err)
	gid, err := strconv.ParseUint(found.Gid, 10, 32)
	check(t, err)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// wantOwner checks every file of a data directory.
func wantOwner(t *testing.T, dir string, want *syscall.Credential) {
	t.Helper()
	check(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if owner := ownerOf(t, path); owner.Uid != want.Uid {
			t.Errorf("%s belongs to user %d", path, owner.Uid)
		}
		return nil
	}))
}

func TestStart_FilesBelongToTheDirectorysOwner(t *testing.T) {
	us := nobody(t)
	for name, prepare := range map[string]func(dir string) string{
		"root first": func(dir string) string { return dir },
		"root first, where the directory is missing": func(dir string) string { return filepath.Join(dir, "state", "data") },
		"after a run of an earlier version by root": func(dir string) string {
			check(t, os.Chown(dir, 0, 0))
			first := start(t, postgres.Options{DataDir: dir, Settings: noSync})
			check(t, first.NoteURL("url"))
			stop(t, first)
			check(t, os.Chown(dir, int(us.Uid), int(us.Gid)))
			return dir
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := sharedDir(t)
			check(t, os.Chown(dir, int(us.Uid), int(us.Gid)))
			data := prepare(dir)
			server := start(t, postgres.Options{DataDir: data, Settings: noSync})
			check(t, server.NoteURL("url"))
			query(t, server.URL(), `CREATE TABLE kept AS SELECT 'data' AS x; SELECT 'ok'`)
			wantOwner(t, dir, us)
			stop(t, server)
			panel := startPanel(t, data, us)
			if got := query(t, panel.url, `SELECT x FROM kept`); got != "data" {
				t.Errorf("kept %q", got)
			}
			check(t, panel.stdin.Close())
			check(t, panel.cmd.Wait())
		})
	}
}

func TestStart_SaysHowToGiveFilesBack(t *testing.T) {
	us := nobody(t)
	for _, name := range []string{"lock", "cluster", "cluster/PG_VERSION", "postgres.log"} {
		t.Run(name, func(t *testing.T) {
			dir := sharedDir(t)
			check(t, os.Chown(dir, int(us.Uid), int(us.Gid)))
			stop(t, start(t, postgres.Options{DataDir: dir, Settings: noSync}))
			check(t, os.Lchown(filepath.Join(dir, name), 0, 0))
			if said := failingPanel(t, dir, us); !strings.Contains(said, "sudo chown -R nobody: "+dir) {
				t.Errorf("it says %q", said)
			}
			// As the advice does.
			check(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
				check(t, err)
				return os.Lchown(path, int(us.Uid), int(us.Gid))
			}))
			panel := startPanel(t, dir, us)
			check(t, panel.stdin.Close())
			check(t, panel.cmd.Wait())
		})
	}
}

func TestStart_FollowsNoLinkOutOfTheDirectory(t *testing.T) {
	us := nobody(t)
	for _, name := range []string{"lock", "postgres.log"} {
		dir := sharedDir(t)
		check(t, os.Chown(dir, int(us.Uid), int(us.Gid)))
		victim := filepath.Join(t.TempDir(), "victim")
		check(t, os.WriteFile(victim, []byte("precious"), 0o600))
		check(t, os.Symlink(victim, filepath.Join(dir, name)))
		_ = startError(t, postgres.Options{DataDir: dir, Settings: noSync}) // What it says differs.
		if content, err := os.ReadFile(victim); err != nil || string(content) != "precious" || ownerOf(t, victim).Uid != 0 {
			t.Errorf("%s: %q, %v", name, content, err)
		}
	}

	// Another's cluster is not taken over by a link to it.
	theirs := sharedDir(t)
	stop(t, start(t, postgres.Options{DataDir: theirs, Settings: noSync}))
	victim := filepath.Join(theirs, "cluster")
	check(t, os.WriteFile(filepath.Join(victim, "pg_hba.conf"), []byte("# precious\n"), 0o600))
	check(t, os.Chown(filepath.Join(victim, "pg_hba.conf"), 0, 0))
	before := listing(t, victim)
	dir := sharedDir(t)
	check(t, os.Chown(dir, int(us.Uid), int(us.Gid)))
	check(t, os.Symlink(victim, filepath.Join(dir, "cluster")))
	if err := startError(t, postgres.Options{DataDir: dir, Settings: noSync}); !strings.Contains(err.Error(), filepath.Join(dir, "cluster")) {
		t.Error(err)
	}
	if after := listing(t, victim); !maps.Equal(before, after) {
		t.Errorf("a start changed %v to %v", before, after)
	}
}

// failingPanel re-executes the test binary as the user and returns why it did not start.
func failingPanel(t *testing.T, dir string, as *syscall.Credential) string {
	t.Helper()
	program, err := os.Executable()
	check(t, err)
	cmd := exec.CommandContext(t.Context(), copyProgram(t, program))
	cmd.Env = append(os.Environ(), hostDir+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	output, err := cmd.Output()
	if err == nil {
		t.Fatal("the panel started")
	}
	return string(output)
}
